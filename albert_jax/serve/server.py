"""The HTTP side of the page: this machine's loopback only, and only the page itself may ask.

A browser lets any page that is open in it send requests to 127.0.0.1. Each request must therefore
name our own Host (which refuses a foreign name that resolves to this address, DNS rebinding), and
an Origin, if there is one, must be ours. Questions must be JSON, which a foreign page may not
send without a preflight request, and no preflight is granted. The page needs nothing from the
network, and its Content-Security-Policy forbids it to load anything.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import logging
import re
import socket
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any

from albert_jax.errors import AlbertError, ConfigError

LOOPBACK = "127.0.0.1"
MAX_BYTES = 65_536
"""Largest body of a question."""

Answer = Callable[[str, Mapping[str, Any]], dict[str, Any] | None]
"""(name of the question, its JSON object) to a JSON object, or None for an unknown question."""

log = logging.getLogger(__name__)


class Server(ThreadingHTTPServer):
    """Serves the page at / and answers POST /ask/NAME."""

    daemon_threads = True

    def __init__(self, answer: Answer, port: int) -> None:
        """Listens on a port of the loopback; port 0 takes a free one. Raises ConfigError."""
        self.answer = answer
        self.page = page().encode()
        self.headers = {
            "Content-Security-Policy": content_security_policy(page()),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "no-store",
            "Connection": "close",
        }
        # Models answer one at a time, because two at once would only share the same cores.
        self.turn = threading.Lock()
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"--port {port}: {getattr(error, 'strerror', None) or error}: choose another, or "
                "0 for a free one"
            ) from error
        self.hosts = {f"{name}:{self.server_port}" for name in (LOOPBACK, "localhost")}

    @property
    def address(self) -> str:
        """The URL of the page."""
        return f"http://{LOOPBACK}:{self.server_port}/"


def page() -> str:
    """The page as one text, with its style and its script inside it."""
    folder = resources.files("albert_jax.serve")
    html, style, script = (
        folder.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("html", "css", "js")
    )
    html = html.replace("<style></style>", f"<style>\n{style}</style>")
    return html.replace("<script></script>", f"<script>\n{script}</script>")


def content_security_policy(page: str) -> str:
    """The policy under which only the page's own script and style run."""

    def hashes(tag: str) -> str:
        texts = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.S)
        digests = (hashlib.sha256(text.encode()).digest() for text in texts)
        return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


class _Refused(Exception):
    """A request that is answered with an error: (status, message)."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = 30.0
    """Seconds after which an idle connection is closed."""
    unread = False
    """True if the body of a request may not have been read."""
    server_version, sys_version = "albert-jax", ""

    def do_GET(self) -> None:
        self._respond(self._page)

    def do_POST(self) -> None:
        self.unread = True
        self._respond(self._answer)

    def _page(self) -> tuple[bytes, str]:
        if self.path != "/":
            raise _Refused(HTTPStatus.NOT_FOUND, "nothing here: the page is at /")
        return self.server.page, "text/html; charset=utf-8"

    def _answer(self) -> tuple[bytes, str]:
        if not self.path.startswith("/ask/"):
            raise _Refused(HTTPStatus.NOT_FOUND, "questions are at /ask/NAME")
        question, fields = self.path.removeprefix("/ask/"), self._read()
        try:
            with self.server.turn:
                answer = self.server.answer(question, fields)
        except AlbertError as error:
            raise _Refused(HTTPStatus.BAD_REQUEST, str(error)) from error
        except Exception as error:  # A bug in one answer must not end the server.
            log.exception("%s failed", self.path)
            message = f"{type(error).__name__}: {error}"
            raise _Refused(HTTPStatus.INTERNAL_SERVER_ERROR, message) from error
        if answer is None:
            raise _Refused(HTTPStatus.NOT_FOUND, f"no such question: {question[:40]}")
        return json.dumps(answer).encode(), "application/json"

    def _read(self) -> dict[str, Any]:
        """The JSON object in the body."""
        content_type = self.headers.get("Content-Type", "").split(";")[0].strip().lower()
        if content_type != "application/json":
            raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
        size = self.headers.get("Content-Length", "")
        if not (size.isascii() and size.isdecimal()):
            raise _Refused(HTTPStatus.LENGTH_REQUIRED, "give a Content-Length")
        if len(size) > 9 or int(size) > MAX_BYTES:
            message = f"at most {MAX_BYTES:,} bytes: shorten it"
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)
        body, self.unread = self.rfile.read(int(size)), False
        try:
            fields = json.loads(body)
            json.dumps(fields, ensure_ascii=False).encode()  # Refuses half a surrogate pair.
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            raise _Refused(HTTPStatus.BAD_REQUEST, "the body is not a JSON object")
        return fields

    def _check_origin(self) -> None:
        """Refuses requests that do not come from the page itself or a program on this machine."""
        hosts, origins = self.headers.get_all("Host", []), self.headers.get_all("Origin", [])
        if len(hosts) != 1 or hosts[0].lower() not in self.server.hosts:
            raise _Refused(HTTPStatus.FORBIDDEN, f"open {self.server.address} itself")
        own = {f"http://{host}" for host in self.server.hosts}
        if len(origins) > 1 or any(origin.lower() not in own for origin in origins):
            raise _Refused(HTTPStatus.FORBIDDEN, "other pages may not ask")

    def _respond(self, handle: Callable[[], tuple[bytes, str]]) -> None:
        try:
            self._check_origin()
            status, (body, content_type) = HTTPStatus.OK, handle()
        except _Refused as refusal:
            status, message = refusal.args
            body = json.dumps({"error": " ".join(message.split())}).encode()
            content_type = "application/json"
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.send_response(status)
            for name, value in self.server.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            if self.unread:
                # Closing a connection with unread bytes resets it, and the answer would be lost.
                self.connection.shutdown(socket.SHUT_WR)
                self.rfile.read(4 * MAX_BYTES)

    def log_message(self, format: str, *args: Any) -> None:
        """Logs nothing: the texts that a user types into the page are private."""

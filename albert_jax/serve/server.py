"""The HTTP side of the page: this machine's loopback only, and only pages of our own may ask.

A browser lets any page that is open in it send requests to 127.0.0.1, so each request must bear
our own Host (a foreign name that is made to point here is refused: DNS rebinding), an Origin that
is ours if there is one, and for questions a JSON body, which a foreign page may not send without
asking first, and we never agree. The page itself needs nothing from the network and is forbidden
to load anything (Content-Security-Policy).
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
LARGEST = 65_536
"""Bytes of a question."""
SECONDS = 30.0
"""A client that says nothing for so long is left."""

Answer = Callable[[str, Mapping[str, Any]], dict[str, Any] | None]
"""(name of the question, its JSON object) to a JSON object; None: unknown question."""

log = logging.getLogger(__name__)


class Server(ThreadingHTTPServer):
    """Serves the page at / and answers POST /ask/NAME; port 0 takes a free one."""

    daemon_threads = True

    def __init__(self, answer: Answer, port: int) -> None:
        self.answer = answer
        self.page = resources.files("albert_jax.serve").joinpath("page.html").read_bytes()
        self.policy = policy(self.page.decode())
        # Models answer one at a time: two at once would only share the same cores.
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
        """What to open in a browser."""
        return f"http://{LOOPBACK}:{self.server_port}/"


def policy(page: str) -> str:
    """The Content-Security-Policy under which only the page's own script and style run."""

    def hashed(tag: str) -> str:
        found = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.S)
        digests = (hashlib.sha256(text.encode()).digest() for text in found)
        return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)

    return (
        f"default-src 'none'; script-src {hashed('script')}; style-src {hashed('style')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = SECONDS
    unread = False
    """Whether the body of a question has not been read (yet)."""
    server_version, sys_version = "albert-jax", ""

    def do_GET(self) -> None:
        if not self._is_ours():
            return
        if self.path == "/":
            self._send(HTTPStatus.OK, self.server.page, "text/html; charset=utf-8")
        else:
            self._say(HTTPStatus.NOT_FOUND, "nothing here: the page is at /")

    def do_POST(self) -> None:
        self.unread = True
        if not self._is_ours():
            return
        if not self.path.startswith("/ask/"):
            self._say(HTTPStatus.NOT_FOUND, "questions are at /ask/NAME")
            return
        kind = self.headers.get("Content-Type", "").split(";")[0].strip().lower()
        if kind != "application/json":
            self._say(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
            return
        size = self.headers.get("Content-Length", "")
        if not (size.isascii() and size.isdecimal()):
            self._say(HTTPStatus.LENGTH_REQUIRED, "say Content-Length")
            return
        if len(size) > 9 or int(size) > LARGEST:
            self._say(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {LARGEST:,} bytes: shorten it")
            return
        body, self.unread = self.rfile.read(int(size)), False
        try:
            asked = json.loads(body)
            json.dumps(asked, ensure_ascii=False).encode()  # Half a surrogate pair is no text.
        except (ValueError, RecursionError):
            asked = None
        if not isinstance(asked, dict):
            self._say(HTTPStatus.BAD_REQUEST, "the body is no JSON object")
            return
        self._answer(self.path.removeprefix("/ask/"), asked)

    def _answer(self, question: str, asked: dict[str, Any]) -> None:
        try:
            with self.server.turn:
                found = self.server.answer(question, asked)
        except AlbertError as error:
            self._say(HTTPStatus.BAD_REQUEST, str(error))
        except Exception as error:  # The server outlives a fault of ours in one answer.
            log.exception("%s failed", self.path)
            self._say(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {error}")
        else:
            if found is None:
                self._say(HTTPStatus.NOT_FOUND, f"no such question: {question[:40]}")
            else:
                self._send(HTTPStatus.OK, json.dumps(found).encode(), "application/json")

    def _is_ours(self) -> bool:
        """Whether the request comes from our own page (or a program here); else refuses it."""
        hosts, origins = self.headers.get_all("Host", []), self.headers.get_all("Origin", [])
        ours = self.server.hosts
        if len(hosts) != 1 or hosts[0].lower() not in ours:
            self._say(HTTPStatus.FORBIDDEN, f"open {self.server.address} itself")
        elif origins and (
            len(origins) > 1 or origins[0].lower() not in {f"http://{h}" for h in ours}
        ):
            self._say(HTTPStatus.FORBIDDEN, "other pages may not ask")
        else:
            return True
        return False

    def _say(self, status: HTTPStatus, error: str) -> None:
        self._send(
            status, json.dumps({"error": " ".join(error.split())}).encode(), "application/json"
        )

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.send_response(status)
            for name, value in (
                ("Content-Type", kind),
                ("Content-Length", str(len(body))),
                ("Content-Security-Policy", self.server.policy),
                ("X-Content-Type-Options", "nosniff"),
                ("Referrer-Policy", "no-referrer"),
                ("Cross-Origin-Resource-Policy", "same-origin"),
                ("Cache-Control", "no-store"),
                ("Connection", "close"),
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            if self.unread:
                # A connection closed over unread bytes is reset, and the answer is lost with it.
                self.connection.shutdown(socket.SHUT_WR)
                self.rfile.read(4 * LARGEST)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not printed: what a person types into the page is nobody else's."""

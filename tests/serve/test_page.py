"""The page in a real browser, driven over its debugging pipe: typed into, pressed, read."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 60


class Browser:
    """A headless Chromium; requests and answers are JSON between NUL bytes on two pipes."""

    def __init__(self, program: str, profile: Path) -> None:
        theirs_in, self._write = os.pipe()
        self._read, theirs_out = os.pipe()
        # The browser reads its descriptor 3 and writes its descriptor 4.
        script = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self.process = subprocess.Popen(
            ["bash", "-c", script, "-", program, "--headless=new", "--no-sandbox", "--disable-gpu",
             "--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={profile}",
             "--remote-debugging-pipe"],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self._count, self._session, self._rest = 0, {}, b""
        self.errors: list[str] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        found = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": found["sessionId"]}
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters):
        """The result of one command of the DevTools protocol."""
        self._count += 1
        sent = {"id": self._count, "method": method, "params": parameters, **self._session}
        os.write(self._write, json.dumps(sent).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                more = os.read(self._read, 65536)
                assert more, "the browser has ended"
                self._rest += more
            message, _, self._rest = self._rest.partition(b"\0")
            found = json.loads(message)
            if found.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.errors.append(json.dumps(found["params"]))
            if found.get("id") == self._count:
                assert "error" not in found, found["error"]
                return found["result"]

    def run(self, script: str):
        """The value of an expression in the page."""
        found = self.ask(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, script: str):
        """The value of an expression as soon as it is true."""
        end = time.monotonic() + SECONDS
        while not (found := self.run(script)):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.05)
        return found

    def close(self) -> None:
        """Ends it."""
        with contextlib.suppress(AssertionError, OSError):
            self.ask("Browser.close")
        self.process.kill()
        self.process.wait()
        os.close(self._write)
        os.close(self._read)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None or shutil.which("bash") is None:
        pytest.skip(f"no browser is installed (none of {', '.join(NAMES)})")
    started = Browser(program, tmp_path / "profile")
    yield started
    started.close()


def choose(browser: Browser, name: str) -> None:
    browser.run(
        f"$('#model').value = {json.dumps(name)}; $('#model').dispatchEvent(new Event('change'))"
    )


def press(browser: Browser, section: str, *texts: str) -> None:
    """Writes texts into the fields of a section in order, presses its button, waits."""
    for i, text in enumerate(texts):
        fields = f"#{section} textarea, #{section} input[type=text]"
        browser.run(f"document.querySelectorAll('{fields}')[{i}].value = {json.dumps(text)}")
    browser.run(f"$('#{section} button').click()")
    browser.wait(f"!$('#{section} button').disabled")


def test_everything_can_be_tried(browser, server):
    browser.ask("Page.navigate", url=server.address)
    browser.wait("document.readyState === 'complete' && document.querySelector('#model').value")
    assert "pretrained" in browser.run("$('#about').textContent")
    assert browser.run("$('#predict').hidden") and not browser.run("$('#masks').hidden")

    press(browser, "masks", "the [MASK] is found")
    assert browser.run("document.querySelectorAll('#masks .answer tr').length") == 10
    width = browser.run("$('#masks .bar div').getBoundingClientRect().width")
    assert width > 0  # Style and script were let through by the policy.
    press(browser, "masks", "<b>no mask</b>")
    assert "[MASK]" in browser.run("$('#masks .error').textContent")
    assert browser.run("document.querySelectorAll('#masks b').length") == 0

    press(browser, "attention", "the file", "is found")
    picture = "$('#attention img')"
    first = browser.wait(f"{picture}.naturalWidth > 150 && {picture}.src")
    assert browser.run("$('#attention [name=layer]').length") == 2
    browser.run(
        "$('#attention [name=head]').value = 2;"
        "$('#attention [name=head]').dispatchEvent(new Event('change'))"
    )
    browser.wait(f"{picture}.src !== {json.dumps(first)}")

    choose(browser, "feelings")
    assert browser.run("$('#masks').hidden") and not browser.run("$('#predict').hidden")
    press(browser, "predict", "the file is found")
    assert browser.run("$('#predict .answer td').textContent") in ("no", "yes")

    choose(browser, "questions")
    press(browser, "predict", "what is found", "the file is found in the folder")
    assert browser.run("$('#predict .answer p').textContent")

    choose(browser, "writer")
    assert browser.run("$('#predict [name=denoising_steps]').value") == "4"
    press(browser, "predict", "the file is\nnot found")
    assert browser.run("document.querySelectorAll('#predict li').length") == 4
    press(browser, "predict", " ")
    assert "empty" in browser.run("$('#predict .error').textContent")

    # The refusals that were provoked are all that the browser complains of.
    assert all("400" in error for error in browser.errors), browser.errors

"""The page in a real browser, driven over its debugging pipe: typed into, pressed, read.

ALBERT_JAX_PICTURES=FOLDER keeps a picture of every function.
"""

from __future__ import annotations

import base64
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

    def look(self, width: int, dark: bool) -> None:
        """Shows the page in a window of this width, light or dark."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=800, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, name: str) -> None:
        """Keeps a picture of the whole page where one is asked for."""
        folder = os.environ.get("ALBERT_JAX_PICTURES")
        if folder:
            found = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
            Path(folder, f"{name}.png").write_bytes(base64.b64decode(found["data"]))

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


@pytest.fixture(params=[(1200, False), (1200, True), (375, False), (375, True)])
def page(request, browser: Browser, server) -> Browser:
    """The page, opened on a desktop or a phone, light or dark."""
    width, dark = request.param
    browser.look(width, dark)
    browser.name = f"{'phone' if width < 600 else 'desktop'}-{'dark' if dark else 'light'}"
    browser.ask("Page.navigate", url=server.address)
    browser.wait("document.readyState === 'complete' && document.querySelector('#model').value")
    return browser


def choose(browser: Browser, name: str) -> None:
    browser.run(
        f"$('#model').value = {json.dumps(name)}; $('#model').dispatchEvent(new Event('change'))"
    )


def press(browser: Browser, section: str, *texts: str) -> None:
    """Writes texts into the fields of a section in order, presses its button, waits."""
    for i, text in enumerate(texts):
        browser.run(f"all('#{section} textarea')[{i}].value = {json.dumps(text)}")
    browser.run(f"$('#{section} button').click()")
    browser.wait(f"!$('#{section} button').disabled")


def texts_of(browser: Browser, selector: str) -> list[str]:
    return browser.run(f"all({json.dumps(selector)}).map((one) => one.textContent)")


def check(browser: Browser, section: str) -> None:
    """Nothing is wider than the window, errors apart from those provoked, or hard to read."""
    assert texts_of(browser, f"#{section} .error") == [""]
    assert browser.run("document.documentElement.scrollWidth <= window.innerWidth")
    # Empty lines for errors and answers take no space.
    assert browser.run("all('.error').every((one) => one.getBoundingClientRect().height === 0)")
    browser.picture(f"{browser.name}-{browser.run('$(`#model`).value')}-{section}")


def test_everything_can_be_tried(page, server):
    assert texts_of(page, "#about")[0].startswith("Pretrained model · 2 layers of width 16")
    assert page.run("$('#predict').hidden && $('#talk').hidden && !$('#masks').hidden")
    press(page, "masks")  # The example in the field will do.
    assert len(texts_of(page, "#masks tr")) == 10
    press(page, "masks", "the [MASK] is [MASK] here")
    assert texts_of(page, "#masks caption") == ["[MASK] 1", "[MASK] 2"]
    words = [
        table.split()[0] for table in texts_of(page, "#masks table tr:first-of-type td:first-child")
    ]
    assert [w.removeprefix("##") for w in words] == texts_of(page, "#masks .big mark")
    width = page.run("$('#masks .bar div').getBoundingClientRect().width")
    assert width > 0  # Style and script were let through by the policy.
    check(page, "masks")
    before = page.run("$('#masks textarea').value")
    page.run("$('#masks .example').click()")
    assert page.run("$('#masks textarea').value") != before

    choose(page, "feelings")
    assert page.run("$('#masks').hidden && !$('#predict').hidden")
    assert texts_of(page, "#predict h2") == ["Classification"]
    press(page, "predict")
    assert sorted(texts_of(page, "#predict td:first-child")) == ["no", "yes"]
    check(page, "predict")

    choose(page, "questions")
    press(page, "predict", "what is found", "the file is found in the folder")
    assert 1 < len(texts_of(page, "#predict tr")) <= 5
    check(page, "predict")

    choose(page, "choices")
    press(page, "predict", "the file", "a\nb\nthe name")
    assert texts_of(page, "#predict td:first-child") == ["a", "b", "the name"]
    assert texts_of(page, "#predict .big")[0] in ("a", "b", "the name")
    check(page, "predict")

    choose(page, "tags")
    press(page, "predict", "the file is found")
    assert [
        w.removesuffix("B-X") for w in texts_of(page, "#predict .word")
    ] == "the file is found".split()
    check(page, "predict")

    choose(page, "pairs")
    press(page, "predict", "the file", "the file")
    assert texts_of(page, "#predict .big") == ["1.00: very alike"]
    assert [end.split(": ")[1] for end in texts_of(page, "#predict .ends span")] == [
        "unrelated texts", "equal texts",
    ]  # fmt: skip
    check(page, "predict")
    assert not [e for e in page.errors if "400" not in e], page.errors


def test_a_dialogue_goes_on(page):
    choose(page, "chat")
    assert texts_of(page, "#talk h2") == ["Conversation"]
    press(page, "talk", "the file is not found")
    press(page, "talk", "the name")
    turns = texts_of(page, "#talk .turn")
    assert len(turns) == 4 and turns[0] == "the file is not found" and turns[2] == "the name"
    assert len(texts_of(page, "#talk .turn:last-child li")) == 4
    assert page.run("$('#talk textarea').value") == ""
    # The reply is that to the whole conversation.
    asked = page.run(
        "ask('predict', {model: 'chat', parts: turnsOf.get('chat').slice(0, 3).map((t) => t.text)"
        ".filter((t) => t)}).then((a) => a.prediction.text)"
    )
    assert turns[3].startswith(asked)
    check(page, "talk")
    choose(page, "feelings")
    choose(page, "chat")
    assert len(texts_of(page, "#talk .turn")) == 4
    page.run("$('#talk .restart').click()")
    assert texts_of(page, "#talk .turn") == []
    choose(page, "writer")
    assert page.run("$('#talk [name=denoising_steps]').value") == "4"
    assert not page.run("$('#talk [name=earlier]').checked")
    page.run("$('#talk [name=denoising_steps]').value = 99")
    assert not page.run("$('#talk form').checkValidity()")


def test_inside_a_model(page):
    press(page, "look", "the [MASK] is [MASK]", "a name")
    assert texts_of(page, "#look .layers tr:first-child th") == [
        "after layer",
        "[MASK] 1",
        "[MASK] 2",
    ]
    assert len(texts_of(page, "#look .layers tr")) == 3
    tokens = texts_of(page, "#look .matrix thead th")
    assert tokens[0] == "[CLS]" and tokens == texts_of(page, "#look .matrix tbody th")
    shares = (
        "all('.matrix tbody tr:first-child td').map((c) => c.style.getPropertyValue('--share'))"
    )
    first = page.run(shares)
    assert sum(float(share) ** 2 for share in first) == pytest.approx(1, abs=0.02)
    page.run(
        "$('#look [name=head]').value = 2;$('#look [name=head]').dispatchEvent(new Event('change'))"
    )
    page.wait(
        f"JSON.stringify({shares}) !== {json.dumps(json.dumps(first, separators=(',', ':')))}"
    )
    page.run("all('.matrix tbody td')[1].dispatchEvent(new Event('mouseover', {bubbles: true}))")
    assert texts_of(page, "#look .share")[0].startswith(f"“[CLS]” attends to “{tokens[1]}” with ")
    page.run("all('#look button.token')[1].click()")
    told = [int(text[:-1]) for text in texts_of(page, "#look button.token small")]
    assert len(told) == len(tokens) and 95 <= sum(told) <= 105
    check(page, "look")

    choose(page, "feelings")
    assert page.run("$('#look .answer').hidden")
    press(page, "look", "the file is found", "")
    assert texts_of(page, "#look .layers tr:first-child th") == ["after layer", "no", "yes"]
    signs = texts_of(page, "#look .reasons .token small")
    assert signs and all(text[0] in "+−" for text in signs)
    check(page, "look")


def test_faults_are_told_in_the_words_of_the_page(browser, server):
    browser.ask("Page.navigate", url=server.address)
    browser.wait("document.readyState === 'complete' && document.querySelector('#model').value")
    press(browser, "masks", "<b>no mask</b>")
    assert "[MASK]" in texts_of(browser, "#masks .error")[0]
    assert texts_of(browser, "#masks b") == []
    choose(browser, "questions")
    press(browser, "predict", "what is found", " ")
    assert texts_of(browser, "#predict .error") == ["the context is empty: write something"]
    choose(browser, "chat")
    press(browser, "talk", " ")
    assert "empty" in texts_of(browser, "#talk .error")[0]
    # The refusals that were provoked are all that the browser complains of.
    assert all("400" in error for error in browser.errors), browser.errors

"""The local page over HTTP: what it answers, and whom it refuses."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from albert_jax import api, cli
from albert_jax.config import ComputeConfig
from albert_jax.inference.explain import explain
from albert_jax.inference.predict import predict
from albert_jax.model import albert
from albert_jax.serve.server import MAX_BYTES, Server
from albert_jax.tasks import registry
from albert_jax.tasks.support.columns import TextExample
from tests import tiny_models


def call(server: Server, method: str, path: str, body: bytes | None = None, **headers: str):
    """(status, headers, body) of one request; headers are written with _ for -."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, named)
    response = connection.getresponse()
    received = response.status, response.headers, response.read()
    connection.close()
    return received


def ask(server: Server, question: str, **fields):
    """(status, JSON) of a question of the page."""
    body = json.dumps(fields).encode()
    status, _, text = call(
        server, "POST", f"/ask/{question}", body, Content_Type="application/json"
    )
    return status, json.loads(text)


def test_the_page_needs_nothing_from_the_network_and_may_load_nothing(server):
    status, headers, page = call(server, "GET", "/")
    assert status == 200 and headers["Content-Type"].startswith("text/html")
    text = page.decode()
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text.replace("://", ""), re.I)
    assert set(re.findall(r"(?:src|href)=\"([^\"]*)", text)) == {"data:,"}
    assert not re.search(r"\sstyle=|\son\w+=", text)  # The policy would forbid them.
    [script] = re.findall("<script>(.*?)</script>", text, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in headers["Content-Security-Policy"]
    assert headers["Content-Security-Policy"].startswith("default-src 'none';")
    assert "innerHTML" not in script  # Texts are texts.


def test_models_are_told(server, models):
    status, answer = ask(server, "models")
    assert status == 200
    described = {model["name"]: model for model in answer["models"]}
    assert list(described) == list(models)
    assert (
        described["pretrained"]["masks"]
        and described["writer"]["masks"]
        and not described["tags"]["masks"]
    )
    assert (
        described["feelings"]["task"] == "classification" and described["pretrained"]["task"] == ""
    )
    assert described["pretrained"]["form"] is None
    choices = described["choices"]["form"]
    assert choices["title"] == "Multiple choice" and choices["fields"] == ["context", "choice"]
    assert choices["repeat_last"] and not choices["generates"]
    writer = described["writer"]["form"]
    assert writer["generates"] and not writer["dialogue"]
    assert (writer["denoising_steps"], writer["most_steps"]) == (4, 8)
    assert described["chat"]["form"]["dialogue"]
    titles = [model["form"]["title"] for model in described.values() if model["form"]]
    assert "Question answering" in titles and not set(titles) & set(registry.names())
    assert (described["pretrained"]["num_layers"], described["pretrained"]["num_heads"]) == (2, 2)


def test_masks(server, models):
    text = "the [MASK] is not [MASK]."
    status, answer = ask(server, "masks", model="pretrained", text=text)
    assert status == 200
    [expected] = api.fill_mask(models["pretrained"], [text], top_k=10)
    assert [[g["word"] for g in guesses] for guesses in answer["masks"]] == [
        [g.word for g in guesses] for guesses in expected
    ]


def test_predictions_are_those_of_the_command(server, models):
    status, answer = ask(server, "predict", model="feelings", parts=["the file\tis  found "])
    assert status == 200
    expected = predict(models["feelings"], [TextExample("x", ("the file is found",))])
    assert answer == {"prediction": expected[0], "steps": []}
    probabilities = answer["prediction"]["probabilities"]
    assert list(probabilities) == ["no", "yes"] and sum(probabilities.values()) == pytest.approx(1)
    assert max(probabilities.values()) == answer["prediction"]["probability"]
    _, answer = ask(server, "predict", model="questions", parts=["what is found", "the file is"])
    assert set(answer["prediction"]) >= {"text", "best", "null_score"}
    assert 1 < len(answer["prediction"]["best"]) <= 5
    _, answer = ask(server, "predict", model="choices", parts=["the file", "a", "b", "c"])
    probabilities = answer["prediction"]["probabilities"]
    assert len(probabilities) == 3 and sum(probabilities) == pytest.approx(1)
    assert probabilities[answer["prediction"]["choice"]] == max(probabilities)
    _, answer = ask(server, "predict", model="tags", parts=["the file is"])
    assert answer["prediction"]["words"] == ["the", "file", "is"]
    _, answer = ask(server, "predict", model="pairs", parts=["the file", "the name"])
    assert set(answer["prediction"]) == {"cosine"}


def test_a_truncated_text_comes_with_a_note(server):
    for name in ("feelings", "chat"):
        _, answer = ask(server, "predict", model=name, parts=["the file is found " * 20])
        assert answer["note"].startswith("The text is longer than 32 tokens"), name
        assert "note" not in ask(server, "predict", model=name, parts=["the file"])[1]


def test_a_similarity_stands_between_those_of_unrelated_and_equal_texts(server, models):
    _, answer = ask(server, "predict", model="pairs", parts=["the file", "the file"])
    assert answer["prediction"]["cosine"] == pytest.approx(1, abs=1e-3)
    reference = answer["reference"]
    assert (
        reference["spread"] > 0
        and reference["equal"] == pytest.approx(1, abs=1e-3)
        and reference["unrelated"] < 0.999
    )
    _, answer = ask(server, "predict", model="grades", parts=["the file", "a name"])
    assert set(answer["prediction"]) == {"score"} and "reference" not in answer


def test_layers_and_contributions_are_those_of_explain(server, models):
    _, answer = ask(server, "explain", model="feelings", text="the file", second="is found")
    found = explain(models["feelings"], "the file\tis found")
    assert answer["labels"] == ["no", "yes"] and answer["layers"] == [1, 2]
    np.testing.assert_allclose(answer["classes"], found.classes)
    told = answer["contributions"]
    assert told["words"] == ["[CLS]", "the", "file", "[SEP]", "is", "found", "[SEP]"]
    label = answer["labels"].index(told["label"])
    margin = float(np.log(found.classes[-1][label] / found.classes[-1][1 - label]))
    assert told["before"] + told["sum"] == pytest.approx(margin, abs=0.05)
    assert sum(told["values"]) == pytest.approx(told["sum"])
    assert told["sum"] == pytest.approx(found.attribution.values.sum())
    _, answer = ask(server, "explain", model="pretrained", text="the [MASK] is [MASK]")
    assert "labels" not in answer and "contributions" not in answer
    words = [[[c["word"] for c in layer] for layer in mask] for mask in answer["masks"]]
    found = explain(models["pretrained"], "the [MASK] is [MASK]")
    assert words == [[[c.word for c in layer] for layer in mask] for mask in found.masked]


def test_generation_shows_its_steps(server):
    fields = {"model": "writer", "parts": ["the file is", "not found"], "denoising_steps": 3}
    status, answer = ask(server, "predict", **fields)
    assert status == 200 and len(answer["steps"]) == 3
    masked = [text.count("[MASK]") for text in answer["steps"]]
    assert masked == sorted(masked, reverse=True) and masked[-1] == 0
    drawn = [ask(server, "predict", **fields, temperature=5.0, seed=s)[1] for s in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_attention_is_that_of_the_layers(server, models):
    model = models["pretrained"]
    batch = api.rows(model.vocabulary, ["the file"], ["is found"], length=48)
    size = int(batch["segment_ids"].sum())
    batch = {name: column[:, :size] for name, column in batch.items()}
    exact = ComputeConfig(dtype="float32")
    x = albert.embed(model.params, model.config, batch, compute=exact)
    _, each = albert.encode_all_layers(model.params, model.config, batch, compute=exact)
    expected = np.asarray(
        albert.attention_probabilities(
            model.params, model.config, np.stack([x, each[0]]), batch["segment_ids"]
        )
    )[:, 0]
    for layer, head, values in (
        (1, 0, expected[0].mean(0)),
        (2, 0, expected[1].mean(0)),
        (2, 1, expected[1, 0]),
        (2, 2, expected[1, 1]),
    ):
        status, answer = ask(
            server, "attention", model="pretrained", text="the file", second="is found",
            layer=layer, head=head,
        )  # fmt: skip
        assert status == 200
        assert len(answer["tokens"]) == size and answer["tokens"][0] == "[CLS]"
        np.testing.assert_allclose(answer["attention"], values, atol=1e-4)


def test_foreign_pages_and_names_are_refused(server):
    own = f"127.0.0.1:{server.server_port}"
    question = b'{"model": "pretrained", "text": "[MASK]"}'
    for host in (
        "evil.example",
        f"evil.example:{server.server_port}",
        "127.0.0.1",
        own + ".evil",
        "",
    ):
        assert call(server, "GET", "/", Host=host)[0] == 403, host
        assert call(server, "POST", "/ask/masks", question, Host=host,
                    Content_Type="application/json")[0] == 403  # fmt: skip
    for origin in ("http://evil.example", "null", f"https://{own}", "http://127.0.0.1", ""):
        status, headers, _ = call(server, "POST", "/ask/masks", question, Origin=origin,
                                  Content_Type="application/json")  # fmt: skip
        assert status == 403 and "Access-Control-Allow-Origin" not in headers, origin
    for origin in (f"http://{own}", f"http://localhost:{server.server_port}"):
        status, _, _ = call(server, "POST", "/ask/masks", question, Origin=origin,
                            Content_Type="application/json")  # fmt: skip
        assert status == 200
    assert call(server, "GET", "/", Host=f"localhost:{server.server_port}")[0] == 200
    assert server.server_address[0] == "127.0.0.1"


def test_a_host_named_twice_or_not_at_all_is_refused(server):
    own = f"Host: 127.0.0.1:{server.server_port}\r\n"
    for lines in ("", own + own):
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as raw:
            raw.sendall(f"GET / HTTP/1.1\r\n{lines}\r\n".encode())
            assert raw.recv(100).split()[1] == b"403"


@pytest.mark.parametrize(
    ("status", "path", "body", "headers"),
    [
        (415, "/ask/masks", b"{}", {"Content_Type": "text/plain"}),
        (415, "/ask/masks", b"{}", {}),
        (400, "/ask/masks", b"[1]", {}),
        (400, "/ask/masks", b"{", {}),
        (400, "/ask/masks", b"[" * 50_000, {}),
        (400, "/ask/masks", b'{"model": "pretrained", "text": "\\ud800 [MASK]"}', {}),
        (400, "/ask/masks", b"\xff", {}),
        (413, "/ask/masks", b" " * (MAX_BYTES + 1), {}),
        (411, "/ask/masks", b"{}", {"Content_Length": "-1"}),
        (413, "/ask/masks", b"{}", {"Content_Length": "9" * 30}),
        (404, "/ask/nothing", b"{}", {}),
        (404, "/masks", b"{}", {}),
        (404, "/ask/masks/../models", b"{}", {}),
    ],
)
def test_bad_requests(server, status, path, body, headers):
    if status != 415:
        headers = {"Content_Type": "application/json", **headers}
    received, _, text = call(server, "POST", path, body, **headers)
    assert received == status and set(json.loads(text)) == {"error"}


def test_other_paths_and_methods(server):
    for path in ("/page.html", "/../etc/passwd", "/?x", "/ask/models"):
        assert call(server, "GET", path)[0] == 404
    for method in ("PUT", "DELETE", "OPTIONS"):
        assert call(server, method, "/")[0] == 501


@pytest.mark.parametrize(
    ("question", "fields", "part"),
    [
        ("masks", {"model": "nobody", "text": "[MASK]"}, "give one of pretrained"),
        ("masks", {"model": ["x"], "text": "[MASK]"}, "give one of pretrained"),
        ("masks", {"model": "pretrained", "text": "no mask"}, "[MASK]"),
        ("masks", {"model": "pretrained", "text": " "}, "text is empty"),
        ("masks", {"model": "pretrained", "text": 3}, "text is empty"),
        ("masks", {"model": "tags", "text": "[MASK]"}, "no masked-language head"),
        ("predict", {"model": "pretrained", "parts": ["a"]}, "was not fine-tuned"),
        ("predict", {"model": "feelings", "parts": []}, "the text is empty"),
        ("predict", {"model": "feelings", "parts": "a"}, "list of texts"),
        ("predict", {"model": "questions", "parts": ["what"]}, "the context is empty: write something"),
        ("predict", {"model": "writer", "parts": ["a"], "denoising_steps": 0}, "denoising steps is 0: give a number between 1 and 8"),
        ("predict", {"model": "writer", "parts": ["a"], "denoising_steps": 9}, "between 1 and 8"),
        ("predict", {"model": "pairs", "parts": ["a", " "]}, "the second text is empty"),
        ("predict", {"model": "choices", "parts": ["a", "b"]}, "1 choices after the context: give 2"),
        ("predict", {"model": "tags", "parts": [""]}, "the sentence is empty"),
        ("explain", {"model": "pretrained", "text": ""}, "the text is empty"),
        ("predict", {"model": "writer", "parts": ["a"], "temperature": "x"}, "give a number"),
        ("attention", {"model": "pretrained", "text": "file " * 60}, "shorten it"),
        ("attention", {"model": "pretrained", "text": "file", "layer": 3}, "between 1 and 2"),
        ("attention", {"model": "pretrained", "text": "file", "head": -1}, "between 0 and 2"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_one_line(server, question, fields, part):
    status, answer = ask(server, question, **fields)
    assert status == 400 and part in answer["error"] and "\n" not in answer["error"]


def test_a_fault_of_ours_is_told_and_outlived(caplog):
    def answer(question, fields):
        raise ValueError("broken\nhere")

    with Server(answer, 0) as broken:
        threading.Thread(target=broken.serve_forever, daemon=True).start()
        for _ in range(2):
            assert ask(broken, "models") == (500, {"error": "ValueError: broken here"})
        broken.shutdown()


def test_no_text_that_is_typed_is_logged(server, caplog, capfd):
    ask(server, "masks", model="pretrained", text="the wombat is [MASK]")
    ask(server, "masks", model="pretrained", text="the wombat is here")

    def fail(question, fields):
        raise ValueError("broken")

    with Server(fail, 0) as broken:
        threading.Thread(target=broken.serve_forever, daemon=True).start()
        ask(broken, "masks", text="the wombat is [MASK]")
        broken.shutdown()
    assert "wombat" not in caplog.text + "".join(capfd.readouterr())


def test_the_command(tmp_path: Path, capsys):
    directory = tiny_models.directory(tmp_path)
    root = Path(__file__).resolve().parents[2]
    # A shell starts its background jobs with the signal ignored, and they hand that down.
    program = (
        "import signal, sys\nfrom albert_jax import cli\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    served = subprocess.Popen(
        [sys.executable, "-c", program, "serve", directory, "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    try:
        line = served.stdout.readline()
        address = re.match(r"(http://127\.0\.0\.1:(\d+)/) ", line)
        with urllib.request.urlopen(address[1], timeout=30) as page:
            assert b"albert-jax" in page.read()
        assert cli.main(["serve", directory, "--port", address[2]]) == 2
        assert f"--port {address[2]}: " in capsys.readouterr().err.splitlines()[-1]
        served.send_signal(signal.SIGINT)
        assert served.wait(30) == 0
        assert served.stderr.read() == ""
    finally:
        served.kill()
        served.wait()


def test_wrong_use(tmp_path, capsys):
    for arguments, part in (
        ([], "name at least one RUN or DIR"),
        ([str(tmp_path)], str(tmp_path)),
        ([tiny_models.directory(tmp_path), "--port", "70000"], "--port 70000: "),
    ):
        assert cli.main(["serve", *arguments]) in (2, 4)
        assert part in capsys.readouterr().err.splitlines()[-1]

"""What is shown of a text: attention, predictions after each layer, contributions of the tokens; the folder."""

from __future__ import annotations

import dataclasses
import html.parser
import json

import jax
import numpy as np
import pytest

from albert_jax import api, cli
from albert_jax.commands import explain as command
from albert_jax.errors import DataError
from albert_jax.inference import attributions
from albert_jax.inference.explain import explain
from albert_jax.model_io.model import Model
from tests import tiny_models
from tests.tiny_models import classifier

TEXT = "the file is [MASK] in the folder"


@pytest.fixture(scope="module")
def sure() -> Model:
    """A classifier with a pronounced head, which still has its masked-language head."""
    return classifier(num_layers=3)


def test_each_layer_is_the_model_of_that_depth(sure: Model) -> None:
    found = explain(sure, TEXT, top_k=2)
    size = len(found.tokens)
    assert found.tokens[0] == "[CLS]" and "[MASK]" in found.tokens and "file" in found.tokens
    assert found.attention.shape == (3, 2, size, size)
    np.testing.assert_allclose(found.attention.sum(-1), 1, atol=1e-5)
    assert found.cosines.shape == (3,) and (np.abs(found.cosines) <= 1 + 1e-6).all()
    (mask,) = found.masked
    for number, guesses in enumerate(mask):
        run_config = dataclasses.replace(
            sure.run_config, model=dataclasses.replace(sure.config, num_hidden_layers=number + 1)
        )
        [[best]] = api.fill_mask(dataclasses.replace(sure, run_config=run_config), [TEXT], top_k=2)
        assert [g.word for g in guesses] == [b.word for b in best]
        np.testing.assert_allclose(
            [g.probability for g in guesses], [b.probability for b in best], atol=1e-5
        )
    assert len({g[0].word for g in mask}) > 1  # layers differ, or the test would say little
    assert found.classes is not None and found.classes.shape == (3, 3)
    np.testing.assert_allclose(found.classes.sum(-1), 1)


def test_attention_is_what_the_text_changes(sure: Model) -> None:
    one, other = (explain(sure, t).attention for t in ("the file", "the name"))
    assert not np.allclose(one[0], other[0], atol=1e-3)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("text", ["the value is not found", "the file\tevery thread waits"])
def test_contributions_add_up_to_the_gain(sure: Model, text: str, pooling: str) -> None:
    """Also against a sum over many points without the bound's help."""
    assert sure.run_config.task is not None
    task = dataclasses.replace(sure.run_config.task, pooling=pooling)
    model = dataclasses.replace(sure, run_config=dataclasses.replace(sure.run_config, task=task))
    found = explain(model, text)
    shares = found.attribution
    assert shares is not None and shares.complete
    assert shares.convergence_delta <= 0.01 * abs(shares.gain) + 1e-3
    assert abs(shares.gain) > 0.05  # there is something to share out
    assert len(shares.values) == len(found.tokens)
    # [CLS] and [SEP] are the same in both rows: they contribute nothing.
    for place in (0, len(shares.values) - 1):
        assert shares.values[place] == 0
    assert found.classes is not None and shares.label == found.classes[-1].argmax()


def test_the_gain_is_the_difference_of_margins(sure: Model) -> None:
    text = "the value is not found"
    batch = api.rows(sure.vocabulary, [text], length=32)
    size = int(batch["segment_ids"].sum())
    batch = {n: c[:, :size] if n != "cls_positions" else c for n, c in batch.items()}
    hidden_row = {**batch, "input_ids": batch["input_ids"].copy()}
    hidden_row["input_ids"][:, 1:-1] = sure.vocabulary.mask_id

    def margin(rows: dict[str, np.ndarray], label: int | None = None) -> tuple[float, int]:
        hidden = api.encode(sure.params, sure.config, rows)
        pooled = api.pooler_output(sure.params, sure.config, hidden, rows)[:, 0]
        head = sure.params["head"]["classifier"]
        logits = np.asarray(pooled @ head["kernel"] + head["bias"])[0]
        label = int(logits.argmax()) if label is None else label
        return float(logits[label] - np.delete(logits, label).mean()), label

    whole, label = margin(batch)
    found = attributions.attribute(sure, batch)
    assert found.label == label
    assert found.gain == pytest.approx(whole - margin(hidden_row, label)[0], abs=1e-4)


def test_incomplete_contributions_are_reported(sure: Model) -> None:
    found = attributions.Attribution(0, np.array([0.5, 0.2]), 0.9, 16)
    assert not found.complete and "NOT within" in str(found)


class Loads(html.parser.HTMLParser):
    """Everything that a page would fetch, and what it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collects."""
        if tag in ("script", "link", "iframe"):
            self.found.append(tag)
        self.found += [v for k, v in attrs if k in ("src", "href") and v]


def test_the_folder_of_a_pretrained_model(tmp_path, capsys) -> None:
    source = tiny_models.directory(tmp_path)
    text = "the <b>$ file</b> $ is [MASK], the [MASK]"
    code = cli.main(["explain", source, text, "--out", str(tmp_path / "out"), "--num-layers", "3"])
    out, err = capsys.readouterr()
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].split() == "layer cosine to the layer before mask 1 mask 2".split()
    assert [line.split()[0] for line in lines[1:4]] == ["1", "2", "3"]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "attention.npy", "explain.html", "explain.json",
    }  # fmt: skip
    page = (tmp_path / "out" / "explain.html").read_text()
    loads = Loads()
    loads.feed(page)
    assert not loads.found and "default-src 'none'" in page
    assert "<b>" not in page and "&lt;b&gt;" in page
    told = json.loads((tmp_path / "out" / "explain.json").read_text())
    assert len(told["masked"]) == 2 and len(told["masked"][0]) == 3
    attention = np.load(tmp_path / "out" / "attention.npy")
    assert attention.shape == (3, 2, len(told["tokens"]), len(told["tokens"]))
    # What exists is not overwritten.
    assert cli.main(["explain", source, text, "--out", str(tmp_path / "out")]) == 4
    assert "exists already" in capsys.readouterr().err


def test_the_page_of_a_classifier(sure: Model) -> None:
    from albert_jax.inference import explain_page

    found = explain(sure, "the file is found")
    assert found.masked == ()
    table = command.table(found)
    assert f"contributions to {sure.run_config.task.labels[found.attribution.label]}" in table
    assert "the contributions add up to" in table and "label" in table.splitlines()[0]
    page = explain_page.page(found)
    assert page.count('<span class="token') == len(found.words)
    assert "the contributions add up to" in page and "points of probability" in page
    assert "The cosine compares" in page and "prefers-color-scheme: dark" in page


def test_contributions_are_told_by_word_in_points_of_probability(sure: Model) -> None:
    found = explain(sure, "the unfindable file is found")
    attribution = found.attribution
    assert attribution is not None and found.classes is not None
    ends = [0, *(word.end for word in found.words)]
    assert ends[:-1] == [word.first for word in found.words] and ends[-1] == len(found.tokens)
    assert len(found.words) < len(found.tokens)
    before, after = attribution.probabilities
    assert after == pytest.approx(found.classes[-1, attribution.label], abs=1e-5)
    assert abs(attribution.gain) > 0.05
    change = attribution.in_probability.sum()
    assert change == pytest.approx(after - before, abs=0.02 * abs(after - before) + 1e-3)


def test_a_label_that_needs_no_words_is_told_and_stays_pale() -> None:
    values = np.array([0.0, 0.3, -0.36, 0.0])
    saturated = attributions.Attribution(0, values, -0.06, 16, (0.998, 0.9978))
    assert np.abs(saturated.in_probability).max() < 0.002
    assert "99.8% already" in saturated.in_words("bad") and "hardly" in saturated.in_words("bad")
    moved = attributions.Attribution(0, values + 1, 3.94, 16, (0.5, 0.98))
    assert moved.in_probability.sum() == pytest.approx(0.48)
    assert "+48.0 points" in moved.in_words("bad")


def test_attention_is_text_with_its_numbers(sure: Model) -> None:
    from albert_jax.inference import explain_page

    found = explain(sure, "the file")
    page = explain_page.page(found)
    layers, heads, size, _ = found.attention.shape
    assert "<img" not in page and page.count('class="matrix"') == layers * heads
    assert page.count("<tr><th>[CLS]</th>") == layers * heads
    share = found.attention[0, 0, 0, 1]
    assert f'title="[CLS] \u2192 {found.tokens[1]} {share:.1%}"' in page
    # Of a long text the mean of the heads is drawn, and the page says so.
    wide = np.full((layers, 40, 200, 200), 1 / 200, np.float32)
    names = tuple("x" * 200)
    long = dataclasses.replace(found, attention=wide, tokens=names, words=())
    page = explain_page.page(long)
    assert page.count('class="matrix"') == layers and "mean of the heads is drawn" in page


def test_texts_that_cannot_be_shown(sure: Model) -> None:
    for text, part in (
        ("", "empty"),
        ("a\t", "empty"),
        ("a\tb\tc", "3 parts where classification takes 1 to 2"),
        ("the " * 60, "at most 48"),
    ):
        with pytest.raises(DataError, match=part):
            explain(sure, text)


def test_a_model_of_several_groups_and_blocks() -> None:
    model = tiny_models.model(num_hidden_groups=2, num_hidden_layers=4, inner_group_num=2)
    found = explain(model, TEXT)
    # The network can end after a layer, not between its two blocks, whose heads stand together.
    assert len(found.attention) == len(found.cosines) == len(found.masked[0]) == 4
    assert found.attention.shape[1] == 2 * model.config.num_attention_heads
    half = explain(model, TEXT, num_layers=2)
    assert half.masked[0][-1] != found.masked[0][-1]
    batch = api.rows(model.vocabulary, ["the file"], length=8)
    from albert_jax.model import albert

    x = albert.embed(model.params, model.config, batch, compute=api.FLOAT32)
    seen = jax.device_get(
        albert.attention_probabilities(
            model.params, model.config, np.stack([x] * 5), batch["segment_ids"]
        )
    )
    assert not np.allclose(seen[0], seen[4], atol=1e-3)  # the second group's own parameters

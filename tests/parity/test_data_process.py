"""Distributions of our rows against those of the original create_pretraining_data.py.

The golden folder's ``data/statistics.json`` holds, for each mode, the generator's settings and the
mean and standard deviation over seeds of every figure. Ours are computed over as many seeds and
passes; a figure fits if it lies within 4 * sqrt(sd^2 + our sd^2) of the mean (at least 0.005 for
shares). Over the about 260 comparisons a right process fails one by chance with probability 0.02,
and our seeds are fixed.

What differs on purpose, and how it is compared:

- The original fills every chunk of a single sentence with text of another document and labels it
  "swapped"; we leave it alone with an empty B and order weight 0. So lengths and label share
  differ. Two comparisons are made: our process as it is, for the figures that do not depend on
  lengths and labels (``UNTOUCHED``), with label share 0.5 among the pairs that have a weight; and
  our process with that rule put back by this test, for all figures.
- A sentence longer than a row is cut into parts, where the original throws away what does not
  fit. The second comparison puts that back too.
- The original lets a word run over [SEP] when B begins inside a word; ours ends at [SEP].

All pairs of one pass over a document share one short target in the original; ours too, so that no
figure is left out for it.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from albert_jax.config import ObjectiveConfig, PhaseConfig
from albert_jax.data.batches import masking, row_plan
from albert_jax.data.batches.builder import BatchBuilder
from albert_jax.data.corpus.corpus import Corpus
from albert_jax.data.corpus.shard_writer import ShardWriter
from albert_jax.data.vocabularies.sentencepiece import SentencePiece
from tests.reference import golden_cases

UNTOUCHED = ("repl_", "share_instances_at_bound", "masked_words_fully_masked_share")


MODES = {
    name: mode
    for path in golden_cases("data/statistics.json")
    for name, mode in json.loads(path.read_text()).items()
}


def test_there_are_modes(golden):
    assert MODES, f"{golden}/data/statistics.json holds no mode"


@pytest.fixture(scope="session")
def prepared(golden, tmp_path_factory):
    """The golden corpus as a prepared folder, for a lower-casing or a cased vocabulary."""
    made = {}

    def prepare(lower_case: bool):
        if lower_case not in made:
            model = (golden / "tokenizer" / "spm.model").read_bytes()
            words = SentencePiece(model, lower_case=lower_case)
            folder = tmp_path_factory.mktemp("golden-corpus")
            text = (golden / "tokenizer" / "corpus.txt").read_text(encoding="utf-8")
            with ShardWriter(folder, "train-0", words.size) as writer:
                for document in text.split("\n\n"):
                    ids = words.encode([line for line in document.split("\n") if line.strip()])
                    if ids:
                        lengths = np.array([len(part) for part in ids])
                        writer.add_many(np.concatenate(ids), lengths, np.array([len(ids)]))
                entry = writer.close()
            manifest = {
                "format": 1, "vocabulary": words.fingerprint, "vocab_size": words.size,
                "splits": {"train": [entry]}, "unigram_sha256": "b" * 64,
            }  # fmt: skip
            (folder / "manifest.json").write_text(json.dumps(manifest))
            made[lower_case] = Corpus.open(folder), words
        return made[lower_case]

    return prepare


def _phase(settings: dict) -> PhaseConfig:
    assert not settings["do_permutation"], "a mode with do_permutation has no counterpart"
    words, several = settings["do_whole_word_mask"], settings["ngram"] > 1
    objective = ObjectiveConfig(
        mask_unit=("ngram" if several else "word") if words else ("span" if several else "token"),
        mask_rate=settings["masked_lm_prob"],
        max_ngram=settings["ngram"],
        favor_shorter_ngram=settings["favor_shorter_ngram"],
        sentence_order="nsp" if settings["random_next_sentence"] else "sop",
    )
    return PhaseConfig(
        sequence_length=settings["max_seq_length"],
        batch_size=1 << 20,
        short_seq_prob=settings["short_seq_prob"],
        objective=objective,
    )


def _draw(mode: dict, corpus: Corpus, words, seed: int, monkeypatch) -> tuple[dict, dict, list]:
    """Rows of as many passes over the corpus as the original made, with what was chosen."""
    settings = mode["settings"]
    phase = _phase(settings)
    # The predictions of a phase follow from its rate; the original's are a setting of their own.
    count = settings["max_predictions_per_seq"]
    monkeypatch.setattr(PhaseConfig, "max_predictions_per_seq", property(lambda _: count))
    builder = BatchBuilder([corpus], words, phase, seed=seed, phase_index=0)
    total = sum(builder.orders[0].epoch_rows(epoch) for epoch in range(mode["dupe_factor"]))
    chosen = []
    choose = masking.choose_ngrams

    def watched(word_sizes, *arguments, **options):
        ngrams = choose(word_sizes, *arguments, **options)
        chosen.append((ngrams, word_sizes))
        return ngrams

    monkeypatch.setattr(masking, "choose_ngrams", watched)
    batch = builder.batch(0, np.arange(total))
    monkeypatch.setattr(masking, "choose_ngrams", choose)
    return batch, settings, chosen


def figures(batch: dict, settings: dict, chosen: list, words) -> dict[str, float]:
    """Every figure of the golden statistics (its README defines them)."""
    length, rate = settings["max_seq_length"], settings["masked_lm_prob"]
    real = batch["segment_ids"] > 0
    size = real.sum(1)
    second = ((batch["token_type_ids"] == 1) & real).sum(1)
    a_size = size - second - 2
    b_size = np.maximum(second - 1, 0)
    weights = batch["mlm_weights"] > 0
    masks = weights.sum(1)
    bound = np.minimum(settings["max_predictions_per_seq"], np.maximum(1, np.rint(size * rate)))
    line = np.repeat(np.arange(len(size)), masks)
    place, label = batch["mlm_positions"][weights], batch["mlm_labels"][weights]
    seen = batch["input_ids"][line, place]
    other = (seen != words.mask_id) & (seen != label)
    found = {
        "instances": len(size), "label1_share": batch["sop_labels"].mean(),
        "len_mean": size.mean(), "len_sd": size.std(), "len_full_share": (size == length).mean(),
        "len_below_90pct_share": (size < 0.9 * length).mean(),
        "len_below_half_share": (size < 0.5 * length).mean(),
        "segA_mean": a_size.mean(), "segB_mean": b_size.mean(),
        "segA_sd": a_size.std(), "segB_sd": b_size.std(),
        "masked_per_instance": masks.mean(),
        "mask_rate_over_all_tokens": masks.sum() / size.sum(),
        "mask_rate_over_nonspecial": masks.sum() / (a_size + b_size).sum(),
        "share_instances_at_bound": (masks == bound).mean(),
        "repl_mask": (seen == words.mask_id).mean(), "repl_same": (seen == label).mean(),
        "repl_other": other.mean(), "repl_other_special_share": (seen[other] < 5).mean(),
        "masked_rel_position_mean": (place / size[line]).mean(),
    }  # fmt: skip
    for name, values, bins in (("len_hist_{:02d}", size, 16), ("segA_hist_{}", a_size, 8)):
        counts = np.histogram(values, bins, (0, length))[0] / len(size)
        found |= {name.format(number): share for number, share in enumerate(counts)}

    # Runs of masked tokens, and of fully masked words.
    masked = np.zeros((len(size), length + 1), bool)
    masked[line, place] = True
    text = batch["input_ids"].copy()
    text[line, place] = label
    special = np.isin(text, (words.cls_id, words.sep_id))
    begins = words.starts_word[text] | special | ~real
    begins[:, 1:] |= special[:, :-1]
    begins = begins.ravel()
    first = np.flatnonzero(begins)
    word_masked = np.add.reduceat(masked[:, :-1].ravel().astype(int), first)
    word_sizes = np.diff(first, append=begins.size)
    whole = word_masked == word_sizes
    found["masked_words_fully_masked_share"] = whole.sum() / (word_masked > 0).sum()
    for name, runs in (("tokens", _runs(masked.ravel())), ("words", _runs(whole))):
        for k in range(1, 9 if name == "tokens" else 7):
            found[f"run_{name}_{k}"] = (runs == k).mean()
        found[f"run_{name}_mean"] = runs.mean()
    lengths = np.concatenate([ngrams.lengths for ngrams, _ in chosen])
    tokens = np.concatenate([_tokens(*each) for each in chosen])
    for n in range(1, settings["ngram"] + 1):
        found[f"accepted_ngram_share/{n}"] = (lengths == n).mean()
        found[f"tokens_per_accepted_ngram_mean/{n}"] = tokens[lengths == n].mean()
    return {name: float(value) for name, value in found.items()}


def _tokens(ngrams: masking.Ngrams, word_sizes: np.ndarray) -> np.ndarray:
    offsets = np.concatenate([[0], np.cumsum(word_sizes)])
    return offsets[ngrams.first + ngrams.words] - offsets[ngrams.first]


def _runs(flags: np.ndarray) -> np.ndarray:
    """Lengths of the runs of True."""
    edges = np.diff(np.concatenate([[0], flags.astype(np.int8), [0]]))
    return np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1)


def _compare(mode: dict, ours: list[dict], names) -> list[str]:
    """One line for each figure outside its band."""
    bad = []
    for name in names:
        values = np.array([run[name] for run in ours])
        if "/" in name:
            group, key = name.split("/")
            mean, sd = mode[group][key], 0.0
        else:
            mean, sd = mode["mean"][name], mode["sd_over_runs"][name]
        band = 4 * np.hypot(sd, values.std(ddof=1))
        share = "mean" not in name and name.startswith(
            ("share", "label1", "len_hist", "segA_hist", "repl", "mask_rate", "run", "accepted")
        )
        share |= name.endswith("_share")
        band = max(band, 0.005 if share else 1e-9)
        if abs(values.mean() - mean) > band:
            bad.append(f"{name}: {values.mean():.5f}, original {mean:.5f}, band {band:.5f}")
    return bad


def _names(mode: dict) -> list[str]:
    groups = ("accepted_ngram_share", "tokens_per_accepted_ngram_mean")
    return [*mode["mean"], *(f"{group}/{key}" for group in groups for key in mode[group])]


@pytest.mark.parametrize("name", MODES)
def test_distributions_with_the_rules_of_the_original_put_back(name, prepared, monkeypatch):
    mode = MODES[name]
    corpus, words = prepared(mode["settings"]["do_lower_case"])
    monkeypatch.setattr(row_plan, "_cut_long", lambda counts, sizes, *_: (sizes, counts))
    if not mode["settings"]["random_next_sentence"]:
        monkeypatch.setattr(
            row_plan, "_foreign", lambda start, end, settings, key: end - start == 1
        )
    ours = [
        figures(*_draw(mode, corpus, words, seed, monkeypatch), words)
        for seed in range(mode["runs"])
    ]
    assert not (bad := _compare(mode, ours, _names(mode))), "\n".join(bad)


@pytest.mark.parametrize("name", MODES)
def test_distributions_as_they_are(name, prepared, monkeypatch):
    mode = MODES[name]
    corpus, words = prepared(mode["settings"]["do_lower_case"])
    ours, labels = [], []
    for seed in range(mode["runs"]):
        batch, settings, chosen = _draw(mode, corpus, words, seed, monkeypatch)
        ours.append(figures(batch, settings, chosen, words))
        labels.append(batch["sop_labels"][batch["sop_weights"] > 0])
    untouched = [figure for figure in _names(mode) if figure.startswith(UNTOUCHED)]
    if mode["settings"]["random_next_sentence"]:
        untouched = _names(mode)  # There the rule is the objective itself.
    else:
        drawn = np.concatenate(labels)
        assert abs(drawn.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(drawn))
    assert not (bad := _compare(mode, ours, untouched)), "\n".join(bad)

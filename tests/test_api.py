"""The public names: their examples run, and a loop of one's own learns with them."""

import contextlib
import dataclasses
import doctest
import io
import pydoc
import re
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

import albert_jax
from albert_jax import api, errors
from albert_jax.errors import CheckpointError, ConfigError
from tests import tiny_models


def test_every_public_name_is_explained() -> None:
    for name in api.__all__:
        assert (getattr(api, name).__doc__ or "").strip(), name


def test_the_package_describes_each_name_in_one_line() -> None:
    lines = [line.split(maxsplit=1) for line in (albert_jax.__doc__ or "").splitlines()]
    described = [line[0] for line in lines if line and line[0] in api.__all__]
    assert sorted(described) == sorted(api.__all__)
    shown = pydoc.plain(pydoc.render_doc(albert_jax))
    for name in api.__all__:
        assert re.search(rf"^    *{name}  +\w", shown, re.M), name


def test_the_errors_are_public() -> None:
    known = {cls.__name__ for cls in [errors.AlbertError, *errors.AlbertError.__subclasses__()]}
    assert known <= set(api.__all__)
    assert issubclass(albert_jax.DataError, albert_jax.AlbertError)


def quiet_finetune(*arguments, **options):
    """`finetune` without its progress, which no example shows."""
    with contextlib.redirect_stdout(io.StringIO()):
        return api.finetune(*arguments, **options)


EXPLAINED = ["Model", *(name for name in api.__all__ if name[0].islower())]


@pytest.mark.parametrize("name", EXPLAINED)
def test_examples_run(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    function = getattr(api, name)
    known = {**vars(api), "init_params": api.init, "directory": tiny_models.directory(tmp_path)}
    if name == "predict":
        known["classifier"] = tiny_models.classifier()
    if name == "finetune":
        known["out"], known["examples"] = str(tmp_path / "run"), str(tmp_path / "a.tsv")
        lines = (f"{text}\t{'not' in text}" for text in tiny_models.SENTENCES)
        text = "\n".join(["sentence\tlabel", *lines])
        Path(known["examples"]).write_text(text.replace("True", "no").replace("False", "yes"))
        known["finetune"] = quiet_finetune
    if "prepared" in function.__doc__.split(">>>", 1)[1]:
        known["prepared"] = tiny_models.prepared(tmp_path)
    [test] = doctest.DocTestFinder(recurse=False).find(function, name, globs=known)
    assert test.examples, f"{name} has no example"
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    assert not doctest.DocTestRunner(optionflags=flags).run(test).failed


def test_a_model_is_shown_in_one_short_line() -> None:
    model = tiny_models.model()
    assert repr(model) == "Model(2 layers, hidden size 16, 64 tokens, from 'memory')"
    shown = repr(dataclasses.replace(tiny_models.classifier(), source="work/run", step=30))
    assert shown.startswith("Model(classification, 5 layers") and shown.endswith("at step 30)")


def test_a_model_survives_saving(tmp_path: Path) -> None:
    model = tiny_models.model(seed=3)
    for kind in ("native", "huggingface"):
        api.save(model, str(tmp_path / kind), to=kind)  # type: ignore[arg-type]
        back = api.load(str(tmp_path / kind))
        assert back.config == model.config
        assert back.vocabulary.size == model.vocabulary.size
        jax.tree.map(np.testing.assert_array_equal, back.params, model.params)
    with pytest.raises(CheckpointError, match="exists already"):
        api.save(model, str(tmp_path / "native"))


def test_nothing_to_load(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        api.load(str(tmp_path / "nowhere"))
    path = tiny_models.directory(tmp_path)
    with pytest.raises(CheckpointError, match="not a run folder"):
        api.load(path, step="best")


def test_rows_cut_the_longer_text() -> None:
    vocabulary = tiny_models.vocabulary()
    long = "the file is found in the folder"
    batch = api.rows(vocabulary, [long], ["it is"], length=10)
    ids, types = batch["input_ids"][0], batch["token_type_ids"][0]
    second = vocabulary.encode(["it is"])[0]
    assert (ids == vocabulary.sep_id).sum() == 2 and ids[0] == vocabulary.cls_id
    assert ids[types == 1].tolist() == [*second.tolist(), vocabulary.sep_id]


@pytest.mark.parametrize(
    "call",
    [
        lambda model, text: api.rows(model.vocabulary, text, length=8),
        lambda model, text: api.rows(model.vocabulary, ["a"], text, length=8),
        lambda model, text: api.predict(tiny_models.classifier(), text),
        api.embed,
        api.tokenize,
        api.score,
        api.fill_mask,
    ],
    ids=["rows", "second rows", "predict", "embed", "tokenize", "score", "fill_mask"],
)
def test_a_string_is_no_list_of_texts(call) -> None:
    with pytest.raises(ConfigError, match=r"'a string' is one text .* write \[TEXT\]"):
        call(tiny_models.model(), "a string")


def test_rows_beyond_the_positions_are_refused() -> None:
    model = tiny_models.model()
    batch = api.rows(model.vocabulary, ["the file"], length=48)
    assert api.encode(model.params, model.config, batch).shape == (1, 48, 16)
    batch = api.rows(model.vocabulary, ["the file"], length=49)
    for encode in (api.encode, jax.jit(api.encode, static_argnums=1)):
        with pytest.raises(ConfigError, match="rows of 49 tokens, but the model has 48 positions"):
            encode(model.params, model.config, batch)


def test_dropout_keys_are_those_of_the_row() -> None:
    four, two = (jax.random.key_data(api.dropout_keys(1, 2, n)) for n in (4, 2))
    np.testing.assert_array_equal(four[:2], two)
    assert len({tuple(key) for key in np.asarray(four).tolist()}) == 4


def test_a_loop_of_ones_own_learns() -> None:
    model = tiny_models.model()
    draw = np.random.default_rng(0)
    ids = draw.integers(5, 64, (8, 16), dtype=np.int32)
    batch = {
        "input_ids": np.where(np.arange(16) == 3, 4, ids),
        "token_type_ids": np.zeros((8, 16), np.int32),
        "segment_ids": np.ones((8, 16), np.int32),
        "positions": np.tile(np.arange(16, dtype=np.int32), (8, 1)),
        "mlm_positions": np.full((8, 1), 3, np.int32),
        "mlm_labels": ids[:, 3:4],
        "mlm_weights": np.ones((8, 1), np.float32),
        "cls_positions": np.zeros((8, 1), np.int32),
        "sop_labels": draw.integers(0, 2, (8, 1), dtype=np.int32),
        "sop_weights": np.ones((8, 1), np.float32),
    }
    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(params, state):
        value = jax.value_and_grad(api.pretraining_loss, has_aux=True)
        (loss, parts), gradient = value(params, model.config, batch)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, loss, parts

    # The config is part of the function, not an argument of it.
    params, state = model.params, optimizer.init(model.params)
    losses = []
    for _ in range(60):
        params, state, loss, parts = step(params, state)
        losses.append(float(loss))
    assert losses[-1] < 0.3 * losses[0]
    assert parts["mlm_accuracy"] > 0.8

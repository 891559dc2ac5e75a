"""A teacher's labels and states as a loss, and runs that learn from one: shallower, narrower."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from albert_jax import api, cli, configfile
from albert_jax.data.vocabularies import training
from albert_jax.finetuning import distillation
from albert_jax.finetuning.distillation import compared_depths, teacher_columns, token_similarities
from albert_jax.model import albert
from albert_jax.model_io import model as models
from albert_jax.tasks import registry
from albert_jax.tasks.classification import Classification, ClassificationConfig
from albert_jax.tasks.support.encoder import Encoder
from tests import tiny_models


def rows() -> dict[str, np.ndarray]:
    """Three rows of which the last is padding."""
    batch = api.rows(tiny_models.vocabulary(), ["the file is found", "it returns", ""], length=24)
    batch["labels"] = np.array([0, 2, 0], np.int32)
    batch["example_weights"] = np.array([1, 1, 0], np.float32)
    return batch


def taught(batch: dict[str, np.ndarray], teacher: api.Model, student: api.Model, **task: float):
    """The batch with the columns of the teacher for a student with these settings."""
    config = dataclasses.replace(student.run_config, task=settings(student, **task))
    return teacher_columns(teacher, config, student.vocabulary)(batch)


def settings(model: api.Model, **task: float) -> ClassificationConfig:
    """The task settings of a model with a teacher, and with these changes."""
    assert isinstance(model.run_config.task, ClassificationConfig)
    return dataclasses.replace(model.run_config.task, teacher="x", **task)  # type: ignore[arg-type]


def terms_of(
    model: api.Model, batch, num_layers: int | None = None, **task: float
) -> dict[str, float]:
    """The terms of the distillation loss by name, not divided by their weights."""
    result = distillation.distillation_loss(
        Classification(settings(model, **task)),
        Encoder(model.config, api.FLOAT32).bind(model.params, None, num_layers),
        batch,
    )  # fmt: skip
    assert {term.weights for term in result.terms.values()} == {"example_weights"}
    return {name: float(term.total) for name, term in result.terms.items()}


def test_depths_are_equal_parts():
    assert compared_depths(12, 4) == (3, 6, 9, 12)
    assert compared_depths(3, 2) == (2, 3) and compared_depths(1, 2) == (1, 1)


def test_similarities_depend_neither_on_width_nor_on_rotation():
    draw = np.random.default_rng(0)
    states = draw.normal(size=(2, 5, 8)).astype(np.float32)
    segments = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    rotation = np.linalg.qr(draw.normal(size=(8, 8)))[0].astype(np.float32)
    found = np.asarray(token_similarities(states, segments))
    np.testing.assert_allclose(
        token_similarities(3 * states @ rotation + 5, segments), found, atol=1e-4
    )
    wide = np.concatenate([states, np.zeros((2, 5, 3), np.float32)], -1)
    np.testing.assert_allclose(token_similarities(wide, segments), found, atol=1e-5)
    np.testing.assert_allclose(np.diagonal(found[0]), 1, atol=1e-5)
    assert (found[1, 3:] == 0).all() and (found[1, :, 3:] == 0).all()
    centered = states[1, :3] - states[1, :3].mean(0)
    unit = centered / np.linalg.norm(centered, axis=-1, keepdims=True)
    np.testing.assert_allclose(found[1, :3, :3], unit @ unit.T, atol=1e-5)
    gradient = jax.grad(lambda x: jnp.sum(token_similarities(x, segments) ** 2))(states)
    assert np.isfinite(gradient).all()


def test_a_student_that_equals_its_teacher_has_nothing_to_learn():
    model = tiny_models.classifier(num_layers=4)
    batch = taught(rows(), model, model)
    same = terms_of(model, batch)
    assert same["teacher"] == pytest.approx(0, abs=1e-5)
    assert same["states"] == pytest.approx(0, abs=1e-5)
    shallow = terms_of(model, batch, num_layers=2)
    assert shallow["teacher"] > 1e-3 and shallow["states"] > 1e-3
    assert shallow["class"] != same["class"]


def test_terms_are_those_of_the_paper():
    model, teacher = tiny_models.classifier(num_layers=2), tiny_models.classifier(num_layers=4)
    batch = taught(rows(), teacher, model)
    terms = terms_of(
        model, batch, distillation_weight=0.25, distillation_temperature=3.0,
        hidden_state_weight=2.0,
    )  # fmt: skip
    hidden, states = albert.encode_all_layers(
        model.params, model.config, batch, compute=api.FLOAT32
    )
    head = model.params["head"]["classifier"]
    pooled = albert.pooler_output(model.params, model.config, hidden, batch)[:, 0]
    logits = np.asarray(pooled @ head["kernel"] + head["bias"], np.float64)

    def softmax(x, temperature):
        powers = np.exp(np.asarray(x, np.float64) / temperature)
        return powers / powers.sum(-1, keepdims=True)

    own, other = softmax(logits, 3.0)[:2], softmax(batch["teacher_logits"], 3.0)[:2]
    divergence = (other * np.log(other / own)).sum(-1)
    assert terms["teacher"] == pytest.approx(0.25 * 9 * divergence.sum(), rel=1e-4)
    cross_entropy = -np.log(softmax(logits, 1.0)[[0, 1], [0, 2]])
    assert terms["class"] == pytest.approx(0.75 * cross_entropy.sum(), rel=1e-4)
    distance = 0.0
    assert batch["teacher_similarities"].shape[:2] == (3, 2)
    for row in (0, 1):
        real = int((batch["segment_ids"][row] > 0).sum())
        for depth in (0, 1):
            ours = token_similarities(states[depth], batch["segment_ids"])[row]
            difference = np.square(ours - batch["teacher_similarities"][row, depth]).sum()
            distance += difference / real**2 / 2
    assert terms["states"] == pytest.approx(2.0 * distance, rel=1e-3)
    without = taught(rows(), teacher, model, hidden_state_weight=0.0)
    assert "teacher_similarities" not in without and "states" not in terms_of(model, without)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoubledConfig(ClassificationConfig):
    name: str = "doubled"


class Doubled(Classification):
    """A task of its own whose logits are twice as large."""

    name = "doubled"
    config_class = DoubledConfig

    def head_logits(self, encoder, hidden, batch):
        return 2 * super().head_logits(encoder, hidden, batch)


def test_a_teacher_applies_the_head_of_its_own_task(monkeypatch):
    monkeypatch.setattr(registry, "_tasks", dict(registry._tasks))
    registry.register(Doubled)
    model = tiny_models.classifier(num_layers=2)
    task = DoubledConfig(**vars(settings(model)) | {"name": "doubled"})
    config = dataclasses.replace(model.run_config, task=task)
    doubled = dataclasses.replace(model, run_config=config)
    logits, twice = (taught(rows(), t, model)["teacher_logits"] for t in (model, doubled))
    np.testing.assert_allclose(twice, 2 * logits, rtol=1e-6)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A table, a directory of weights, and a run fine-tuned on the one from the other."""
    folder = tmp_path_factory.mktemp("data")
    lines = [f"{text}\t{'not' if 'not' in text else 'yes'}" for text in tiny_models.SENTENCES]
    (folder / "train.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    tiny_models.directory(folder)
    assert cli.main(command(folder, folder / "teacher", "--init", str(folder / "model"))) == 0
    return folder


def command(data, out, *more):
    table = str(data / "train.tsv")
    return ["finetune", "--train", table, "--dev", table, "--out", str(out), "--max-steps", "3",
            "--phases.0.batch-size", "4", "--phases.0.sequence-length", "32",
            "--run.logging-steps", "1", *map(str, more)]  # fmt: skip


@pytest.mark.thorough
def test_a_shallower_student_and_a_narrower_one(data, tmp_path, capsys):
    teacher = str(data / "teacher")
    out = tmp_path / "shallow"
    arguments = command(data, out, "--init", teacher, "--teacher", teacher, "--num-layers", 1)
    assert cli.main(arguments) == 0, capsys.readouterr().err
    config = configfile.load(str(out))
    assert config.model.num_hidden_layers == 1 and config.task.teacher == teacher
    assert config.task.labels == configfile.load(teacher).task.labels
    text = (out / "metrics.jsonl").read_text()
    assert '"teacher_loss"' in text and '"states_loss"' in text and '"class_loss"' in text
    model = models.load(str(out))
    assert model.params["head"]["classifier"]["kernel"].shape == (16, 2)

    out = tmp_path / "narrow"
    narrow = ["--model.hidden-size", 8, "--model.intermediate-size", 8,
              "--model.num-attention-heads", 2]  # fmt: skip
    assert cli.main(command(data, out, "--teacher", teacher, *narrow)) == 0
    assert "of its teacher" in capsys.readouterr().out
    model = models.load(str(out))
    assert model.config.hidden_size == 8
    assert model.vocabulary.fingerprint == tiny_models.vocabulary().fingerprint
    code = cli.main(["predict", str(out), "the file is found"])
    assert code == 0 and "label" in capsys.readouterr().out


def test_teachers_that_cannot_teach(data, tmp_path, capsys):
    def last(*arguments, exit_code):
        code = cli.main(command(data, tmp_path / "x", *arguments))
        err = capsys.readouterr().err
        assert code == exit_code, err
        assert not (tmp_path / "x").exists()
        return err.rstrip("\n").splitlines()[-1]

    init, teacher = ("--init", data / "model"), ("--teacher", data / "teacher")
    assert "fine-tuned to classification" in last(*init, "--teacher", data / "model", exit_code=4)
    assert "leave them out" in last(
        *init, *teacher, "--task.labels", "yes", "not", "b", exit_code=2
    )
    tagging = ("--task", "token-classification")
    assert "--teacher: token-classification" in last(*init, *teacher, *tagging, exit_code=2)
    assert "--num-layers 0" in last(*init, "--num-layers", 0, exit_code=2)
    other = tmp_path / "other"
    vocabulary = training.from_texts(list(tiny_models.SENTENCES) * 3, 60)
    model = tiny_models.model(vocab_size=vocabulary.size)
    api.save(dataclasses.replace(model, vocabulary=vocabulary), str(other))
    assert "another vocabulary" in last("--init", other, *teacher, exit_code=2)

"""Fine-tuned heads in Transformers: the same logits, labels, vectors and texts."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest

from albert_jax.config import PhaseConfig
from albert_jax.export import huggingface
from albert_jax.model_io.model import Model
from albert_jax.tasks import registry
from albert_jax.tasks.generation import SourceTarget
from albert_jax.tasks.support.encoder import Encoder
from albert_jax.tasks.support.prediction import Sampling
from albert_jax.tasks.support.rows import BatchSpec
from tests import tiny_models
from tests.model_io.structures import LABELS, finetuned
from tests.parity.test_conversion import (
    COMPUTE,
    LOGITS,
    load_quietly,
    random_rows,
    random_structure,
)

torch = pytest.importorskip("torch", reason="needs the extra parity (torch)")
transformers = pytest.importorskip("transformers", reason="needs the extra parity (transformers)")


def our_outputs(model: Model, batch) -> list[np.ndarray]:
    """The outputs that `predict` reads, in float32."""
    config = model.run_config.task
    assert config is not None
    task, encoder = registry.create(config), Encoder(model.config, COMPUTE)
    found = jax.jit(lambda p, b: task.outputs(encoder.bind(p), b))(model.params, batch)
    return [np.asarray(x) for x in (found if isinstance(found, tuple) else (found,))]


def grouped(batch: dict, inputs: dict, size: int) -> tuple[dict, dict]:
    """Rows of `size` sequences each."""
    batch = {k: v.reshape(-1, size, v.shape[-1]) for k, v in batch.items()}
    batch["choice_mask"] = np.ones(batch["input_ids"].shape[:2], np.float32)
    return batch, {k: v.reshape(-1, size, v.shape[-1]) for k, v in inputs.items()}


@pytest.mark.parity
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("classification", {"pooling": "cls"}),
        ("classification", {"pooling": "mean"}),
        ("regression", {"pooling": "cls"}),
        ("regression", {"pooling": "mean"}),
        ("multiple-choice", {"pooling": "cls"}),
        ("squad-v1", {}),
        ("token-classification", {}),
    ],
)
def test_logits_equal_those_of_transformers(name, settings, seed, tmp_path, record_property):
    ours = finetuned(name, random_structure(seed), seed, **settings)
    huggingface.export(ours, str(tmp_path / "x"))
    cls = registry.create(ours.run_config.task).transformers_class()
    model, problems = load_quietly(cls.auto, tmp_path / "x")
    assert not problems and type(model).__name__ == cls.name
    batch, inputs = random_rows(ours.config, seed, rows=6)
    real = batch["segment_ids"] == 1
    if name == "multiple-choice":
        batch, inputs = grouped(batch, inputs, 3)
    outputs = our_outputs(ours, batch)
    with torch.no_grad():
        found = model(**inputs)
    theirs = [found.start_logits, found.end_logits] if name == "squad-v1" else [found.logits]
    if settings.get("pooling") == "mean":
        # As the model card says: a mean of the tokens' outputs.
        assert "AutoModelForTokenClassification" in (tmp_path / "x" / "README.md").read_text()
        mask = inputs["attention_mask"].unsqueeze(-1)
        theirs = [(found.logits * mask).sum(1) / mask.sum(1)]
    worst = 0.0
    for a, b in zip(outputs, theirs, strict=True):
        assert a.shape == b.shape
        delta = np.abs(a - b.numpy())
        per_token = name in ("squad-v1", "token-classification")
        worst = max(worst, float((delta[real] if per_token else delta).max()))
    record_property("heads against Transformers", worst)
    print(f"heads against Transformers: {worst:.2e} (bound {LOGITS:.0e})")
    assert worst <= LOGITS
    labels = LABELS.get(name, ("score",) if name == "regression" else ())
    if labels:
        assert model.config.id2label == dict(enumerate(labels))
        assert model.config.label2id == {label: i for i, label in enumerate(labels)}
    if name == "regression":
        assert model.config.problem_type == "regression" and model.num_labels == 1


@pytest.mark.parity
@pytest.mark.parametrize("seed", range(3))
def test_vectors_equal_those_of_the_described_modules(seed, tmp_path):
    """The modules' own files say what is computed; the library itself is tried where installed."""
    finetuned_model = finetuned("sentence-embedding", tiny_models.MODEL, seed)
    huggingface.export(finetuned_model, str(tmp_path / "x"))
    modules = json.loads((tmp_path / "x" / "modules.json").read_text())
    assert [m["path"] for m in modules] == ["", "1_Pooling", "2_Normalize"]
    pooling = json.loads((tmp_path / "x" / "1_Pooling" / "config.json").read_text())
    assert pooling.pop("pooling_mode_mean_tokens") is True
    assert pooling.pop("word_embedding_dimension") == 16 and not any(pooling.values())
    batch, inputs = random_rows(finetuned_model.config, seed)
    model, problems = load_quietly("AutoModel", tmp_path / "x")
    assert all(name.startswith("pooler.") for name in problems.get("missing_keys", ()))
    assert set(problems) <= {"missing_keys"}
    with torch.no_grad():
        states = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][..., None].float()
    mean = (states * mask).sum(1) / mask.sum(1)
    theirs = torch.nn.functional.normalize(mean, dim=1).numpy()
    (ours,) = our_outputs(finetuned_model, batch)
    assert np.abs(ours - theirs).max() <= LOGITS
    if importlib.util.find_spec("sentence_transformers") is None:
        return
    import sentence_transformers

    library = sentence_transformers.SentenceTransformer(str(tmp_path / "x"), local_files_only=True)
    texts = ["the file is not found", "a folder"]
    from albert_jax import api

    rows = api.rows(tiny_models.vocabulary(), texts, length=16)
    (ours,) = our_outputs(finetuned_model, rows)
    assert np.abs(ours - library.encode(texts)).max() <= LOGITS


def script_of(folder):
    """generate.py of an export as a module."""
    spec = importlib.util.spec_from_file_location("generate", folder / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parity
@pytest.mark.parametrize("steps", [1, 3, 8, 20])
def test_the_script_writes_the_same_texts(steps, tmp_path):
    vocabulary, length = tiny_models.vocabulary(), 32
    settings = {"max_target_length": 9, "denoising_steps": steps}
    ours = finetuned("generation", tiny_models.MODEL, steps, **settings)
    phases = (PhaseConfig(sequence_length=length),)
    ours = replace(ours, run_config=replace(ours.run_config, phases=phases))
    huggingface.export(ours, str(tmp_path / "x"))
    model, problems = load_quietly("AutoModelForMaskedLM", tmp_path / "x")
    assert not problems
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "x", local_files_only=True)
    long = "every thread waits until another one has written its own line of the file"
    sources = [("the file is found",), ("a folder", "the name of it"), (long, "it returns")]
    task = registry.create(ours.run_config.task)
    examples = [SourceTarget("x", source) for source in sources]
    features = task.featurize(vocabulary, examples, length)
    encoder = Encoder(ours.config, COMPUTE)
    run = partial(jax.jit(lambda p, b: task.outputs(encoder.bind(p), b)), ours.params)
    spec = BatchSpec(vocabulary, length, 3)
    texts = task.forward(features, run, spec, Sampling())
    script = script_of(tmp_path / "x")
    # Names of special tokens stand apart by other spaces there.
    theirs = [script.generate(model, tokenizer, source) for source in sources]
    assert [text.replace(" ", "") for text in theirs] == [text.replace(" ", "") for text in texts]
    assert all(a == b for a, b in zip(theirs, texts, strict=True) if "[" not in b and "<" not in b)
    assert len(set(texts)) > 1
    assert len((tmp_path / "x" / "generate.py").read_text().splitlines()) <= 50


@pytest.mark.parity
def test_pipelines_speak_the_labels(tmp_path):
    for name, settings, options in (
        ("classification", {"pooling": "cls"}, {}),
        ("token-classification", {}, {"ignore_labels": []}),
    ):
        ours = finetuned(name, tiny_models.MODEL, **settings)
        huggingface.export(ours, str(tmp_path / name))
        kind = registry.create(ours.run_config.task).transformers_class().pipeline
        pipeline = transformers.pipeline(kind, model=str(tmp_path / name), **options)
        said = pipeline("the file is found")
        assert said
        for one in said:
            assert (one.get("label") or one.get("entity")) in LABELS[name]

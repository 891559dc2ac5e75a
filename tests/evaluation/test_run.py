"""A run folder measured and loaded: newest, best and averaged parameters, several depths."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from albert_jax import api, cli, configfile
from albert_jax.checkpoint.manager import Checkpoints
from albert_jax.data.batches.builder import BatchBuilder
from albert_jax.data.corpus.corpus import Corpus
from albert_jax.data.vocabularies import vocabulary as vocabularies
from albert_jax.errors import CheckpointError
from albert_jax.evaluation import pretraining
from albert_jax.model_io import run_record
from albert_jax.observe.metrics import MetricsWriter
from tests import tiny_models

CONFIG = dataclasses.replace(
    tiny_models.RECIPE,
    optimizer=dataclasses.replace(tiny_models.RECIPE.optimizer, ema_decay=0.9),
    compute=api.FLOAT32,
)


RECORD = {"vocabulary": tiny_models.vocabulary().fingerprint, "data_order": ["a"]}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run of three checkpoints; step 2 has the best number."""
    folder = tmp_path_factory.mktemp("runs")
    config = dataclasses.replace(
        CONFIG, data=dataclasses.replace(CONFIG.data, prepared=(tiny_models.prepared(folder),))
    )
    path = folder / "run"
    path.mkdir()
    (path / "config.toml").write_text(configfile.dumps(config))
    (path / "record.json").write_text(json.dumps(RECORD))
    vocabularies.save(tiny_models.vocabulary(), str(path / "vocabulary"))
    checkpoints = Checkpoints(str(path), keep=3, best=None)
    for step, loss in ((1, 5.0), (2, 3.0), (3, 4.0)):
        params = api.init(config.model, seed=step)
        state = {"params": params, "ema": api.init(config.model, seed=10 + step)}
        checkpoints.save(step, state, {}, {"mlm_loss": loss})
    checkpoints.close()
    writer = MetricsWriter(str(path))
    writer.write({"step": 1, "mlm_loss": 5.0})
    writer.flush()
    return str(path)


def kernel(model: api.Model) -> np.ndarray:
    return np.asarray(model.params["pooler"]["kernel"])


def test_steps_and_weights_are_chosen(run: str) -> None:
    for options, seed, step in (
        ({"weights": "trained"}, 3, 3),
        ({"weights": "trained", "step": "best"}, 2, 2),
        ({"weights": "trained", "step": 1}, 1, 1),
        ({"weights": "averaged"}, 13, 3),
        ({}, 13, 3),
    ):
        model = api.load(run, **options)
        assert model.step == step
        np.testing.assert_array_equal(
            kernel(model), api.init(CONFIG.model, seed)["pooler"]["kernel"]
        )


def evaluate(run: str, *options: str) -> dict:
    """evaluation.json after the command."""
    assert cli.main(["evaluate", run, *options]) == 0
    return json.loads((Path(run) / "evaluation.json").read_text())


def test_table_report_and_curves(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = evaluate(run, "--num-layers", "1", "2", "--max-samples", "8")
    text = capsys.readouterr().out
    assert report["step"] == 3 and [found["num_layers"] for found in report["results"]] == [1, 2]
    one, two = (found["scores"] for found in report["results"])
    assert one["unigram_loss"] == two["unigram_loss"] > 1
    assert one["mlm_loss"] != two["mlm_loss"]
    assert one["forward_flops_per_token"] < two["forward_flops_per_token"]
    assert 0 <= two["sop_cut_accuracy"] <= 1
    assert two["nats_below_unigram"] == pytest.approx(two["unigram_loss"] - two["mlm_loss"])
    assert f"{two['mlm_loss']:.4f}" in text and "sop_cut_accuracy" in text
    assert (Path(run) / "curves.png").stat().st_size > 1000


def held_out_rows(run: str, folder: str, seed: int) -> list[dict[str, np.ndarray]]:
    """The first eight held-out rows of a folder, made one by one without batches of evaluation."""
    config = configfile.load(str(Path(run) / "config.toml"))
    phase = dataclasses.replace(config.phases[-1], batch_size=8)
    corpus = Corpus.open(folder, "validation")
    builder = BatchBuilder([corpus], tiny_models.vocabulary(), phase, seed=seed, phase_index=-1)
    return [builder.batch(0, np.array([row])) for row in range(min(8, builder.rows_per_epoch()))]


def test_the_loss_is_that_of_the_held_out_rows_one_by_one(run: str) -> None:
    """Computed here from the logits of each row, not by the loss that training uses."""
    numbers = evaluate(run, "--max-samples", "8")["results"][0]["scores"]
    model = api.load(run)
    total = count = 0.0
    for row in held_out_rows(run, model.run_config.data.prepared[0], pretraining.SEED):
        hidden = api.encode(model.params, model.config, row)
        logits = api.mlm_logits(model.params, model.config, hidden, row["mlm_positions"])
        every = np.asarray(logits, np.float64)
        log_probs = every - np.log(np.exp(every).sum(-1, keepdims=True))
        own = np.take_along_axis(log_probs, row["mlm_labels"][..., None], -1)[..., 0]
        total -= float((own * row["mlm_weights"]).sum())
        count += float(row["mlm_weights"].sum())
    assert numbers["masked_tokens"] == count > 8
    assert numbers["mlm_loss"] == pytest.approx(total / count, rel=1e-5)


def test_all_prepared_folders_are_measured(
    run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The losses of two folders together are those of each, weighted by their masked tokens."""
    shutil.copytree(run, tmp_path / "run")
    both = str(tmp_path / "run")
    first = configfile.load(str(tmp_path / "run" / "config.toml")).data.prepared[0]
    monkeypatch.setattr(tiny_models, "SENTENCES", tiny_models.SENTENCES[::-1])
    second = tiny_models.prepared(tmp_path)
    (tmp_path / "third").mkdir()
    third = tiny_models.prepared(tmp_path / "third", validation_share=0.0)
    alone = []
    for prepared in ((first,), (second,), (first, second), (first, third, second)):
        config = configfile.load(str(tmp_path / "run" / "config.toml"))
        data = dataclasses.replace(config.data, prepared=prepared)
        text = configfile.dumps(dataclasses.replace(config, data=data))
        (tmp_path / "run" / "config.toml").write_text(text)
        alone.append(evaluate(both)["results"][0]["scores"])
    one, two, together, with_an_empty_one = alone
    assert with_an_empty_one["mlm_loss"] == together["mlm_loss"]
    counts = [numbers["masked_tokens"] for numbers in (one, two)]
    assert together["masked_tokens"] == sum(counts) and one["mlm_loss"] != two["mlm_loss"]
    expected = np.average([one["mlm_loss"], two["mlm_loss"]], weights=counts)
    assert together["mlm_loss"] == pytest.approx(expected, rel=1e-6)


def test_what_cannot_be_measured(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, code, message in (
        ([str(tmp_path)], 4, "is not a run folder"),
        ([run, "--num-layers", "0"], 2, "--num-layers 0"),
        ([run, "--max-samples", "0"], 2, "--max-samples 0"),
        ([run, "--input", "x.tsv"], 2, "--input is for fine-tuned runs"),
        ([run, "--step", "7"], 4, "7"),
    ):
        assert cli.main(["evaluate", *arguments]) == code
        assert message in capsys.readouterr().err.splitlines()[-1]


def test_run_without_average_or_checkpoint(run: str, tmp_path: Path, capsys) -> None:  # noqa: ANN001
    config = dataclasses.replace(
        CONFIG, optimizer=dataclasses.replace(CONFIG.optimizer, ema_decay=0.0)
    )
    (tmp_path / "config.toml").write_text(configfile.dumps(config))
    (tmp_path / "record.json").write_text(json.dumps(RECORD))
    assert run_record.is_run(str(tmp_path)) and not run_record.is_run(str(tmp_path / "other"))
    with pytest.raises(CheckpointError, match="ema_decay is 0"):
        api.load(str(tmp_path), weights="averaged")
    with pytest.raises(CheckpointError, match="has no complete checkpoint yet"):
        api.load(str(tmp_path))
    (tmp_path / "config.toml").unlink()
    for left in ("record.json", None):
        assert cli.main(["export", str(tmp_path), "--out", str(tmp_path / "out")]) == 4
        assert (
            "holds no model: if it is a run, let it save a checkpoint first"
            in capsys.readouterr().err
        )
        if left:
            (tmp_path / left).unlink()


def test_prepared_text_that_is_gone(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "run"
    shutil.copytree(run, broken)
    config = broken / "config.toml"
    there = configfile.load(str(config)).data.prepared[0]
    config.write_text(config.read_text().replace(there, str(tmp_path / "gone")))
    assert cli.main(["evaluate", str(broken)]) == 3
    assert re.search("gone .*data prepare", capsys.readouterr().err.splitlines()[-1])


def test_data_that_was_moved_is_named_and_compared(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "run"
    shutil.copytree(run, moved)
    config = moved / "config.toml"
    there = configfile.load(str(config)).data.prepared[0]
    content = Corpus.open(there).content
    (moved / "record.json").write_text(json.dumps(RECORD | {"data": [content]}))
    config.write_text(config.read_text().replace(there, str(tmp_path / "gone")))
    shutil.copytree(there, tmp_path / "elsewhere")
    original = evaluate(run, "--max-samples", "8")["results"]
    options = ("--max-samples", "8", "--data")
    assert evaluate(str(moved), *options, str(tmp_path / "elsewhere"))["results"] == original
    assert cli.main(["evaluate", str(moved)]) == 3
    assert "name its folder with --data" in capsys.readouterr().err.splitlines()[-1]
    (tmp_path / "other").mkdir()
    other = tiny_models.prepared(tmp_path / "other", validation_share=0.4)
    assert cli.main(["evaluate", str(moved), "--data", other]) == 3
    assert "was not trained on this data" in capsys.readouterr().err.splitlines()[-1]
    assert cli.main(["evaluate", str(moved), "--data", there, there]) == 3


def test_numbers_that_cannot_be_written_are_printed(run: str, tmp_path: Path, capsys) -> None:  # noqa: ANN001
    read_only = tmp_path / "run"
    shutil.copytree(run, read_only)
    (read_only / "evaluation.json").unlink(missing_ok=True)
    (read_only / "evaluation.json").mkdir()  # A superuser may write to read-only folders.
    assert cli.main(["evaluate", str(read_only), "--max-samples", "8"]) == 7
    told = capsys.readouterr()
    assert "mlm_loss" in told.out
    assert "evaluation.json: Is a directory" in told.err.splitlines()[-1]
    assert told.err.endswith("; the numbers above are printed only\n")


def test_folders_of_data_and_vocabularies_are_no_models(run: str, tmp_path: Path, capsys) -> None:  # noqa: ANN001
    data = configfile.load(run).data.prepared[0]
    for folder, kind in (
        (data, "a folder of prepared data"),
        (f"{run}/vocabulary", "a vocabulary"),
    ):
        assert cli.main(["export", folder, "--out", str(tmp_path / "out")]) == 4
        assert f"{folder} is {kind} and holds no weights" in capsys.readouterr().err


def test_links_to_folders_are_folders(run: str, tmp_path: Path, capsys) -> None:  # noqa: ANN001
    link = tmp_path / "link"
    link.symlink_to(run)
    assert run_record.is_run(str(link)) and api.load(str(link)).step == 3
    evaluate(str(link), "--max-samples", "8")
    assert cli.main(["export", str(link), "--out", str(tmp_path / "export")]) == 0
    (tmp_path / "exported").symlink_to("export")
    assert cli.main(["fill-mask", str(tmp_path / "exported"), "the [MASK] is found"]) == 0
    (tmp_path / "tokenizer").symlink_to(Path(run) / "vocabulary")
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"{line} {i}." for i in range(9) for line in tiny_models.SENTENCES))
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to("disk")
    arguments = ["--tokenizer", str(tmp_path / "tokenizer"), "--out", str(tmp_path / "data")]
    assert cli.main(["data", "prepare", "--text", str(text), *arguments]) == 0
    assert (tmp_path / "disk" / "manifest.json").is_file()
    capsys.readouterr()
    assert cli.main(["export", str(link), "--out", str(tmp_path / "exported")]) == 4
    assert "exists already" in capsys.readouterr().err


def test_a_platform_without_devices_is_one_line(run: str, monkeypatch, capsys) -> None:  # noqa: ANN001
    def no_plugin() -> None:
        raise AssertionError

    monkeypatch.setattr(jax, "devices", no_plugin)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    message = "JAX_PLATFORMS=cuda: its plugin is not installed or finds no device"
    config, data = str(Path(run) / "config.toml"), configfile.load(run).data.prepared[0]
    for arguments in (
        ["evaluate", run],
        ["fill-mask", run, "the [MASK] is"],
        ["pretrain", "--config", config, "--data", data, "--out", "never"],
        ["bench", "--config", config],
    ):
        assert cli.main(arguments) == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith(f"albert-jax: {message}")
    assert cli.main(["doctor"]) == 2
    assert f"NOT devices    {message}" in capsys.readouterr().out


def test_a_run_is_loaded_as_arrays_that_jax_takes(run: str) -> None:
    model = api.load(run)
    batch = api.rows(model.vocabulary, ["the file"], length=8)
    hidden = jax.jit(lambda p: api.encode(p, model.config, batch))(model.params)
    assert hidden.shape == (1, 8, 16)


def test_held_out_rows_have_the_masks_and_lengths_of_the_paper(run: str) -> None:
    """So that runs that were trained with others can be compared."""
    model = api.load(run)
    held_out = pretraining.held_out_corpora(pretraining.training_corpora(model))
    phase = model.run_config.phases[-1]
    read = []
    for rate, uniform, short in ((0.15, False, 0.1), (0.5, False, 1.0), (0.5, True, 0.1)):
        objective = dataclasses.replace(phase.objective, mask_rate=rate, uniform_mask_rate=uniform)
        changed = dataclasses.replace(phase, objective=objective, short_seq_prob=short)
        read += pretraining.held_out_batches(
            held_out, changed, model.vocabulary, max_samples=8, batch_size=8
        )
    of_paper, same, uniform_rate = read
    for name, column in of_paper.items():
        np.testing.assert_array_equal(same[name], column)
    assert uniform_rate["mlm_labels"].shape[1] > of_paper["mlm_labels"].shape[1]

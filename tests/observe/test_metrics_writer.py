"""metrics.jsonl survives restarts, torn lines, full disks and odd numbers."""

import json
import math
import os
import resource
from pathlib import Path

import numpy as np
import pytest

from albert_jax import files
from albert_jax.errors import DataError, StorageError
from albert_jax.observe import metrics
from albert_jax.observe.metrics import MetricsWriter, read_rows, timeless


def writer(run: object, **options) -> MetricsWriter:
    return MetricsWriter(str(run), **({"events": False, "warn": pytest.fail} | options))


def steps(run: object) -> list[object]:
    return [row["step"] for row in read_rows(str(run))]


def test_each_row_is_a_whole_line_at_once(tmp_path: Path) -> None:
    written = writer(tmp_path)
    written.write({"step": 10, "phase": 0, "loss": np.float32(2.5), "count": np.int64(3)})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert text.endswith("\n") and text.count("\n") == 1
    row = json.loads(text)
    assert (row["kind"], row["step"], row["loss"], row["count"]) == ("train", 10, 2.5, 3)


def test_numbers_that_json_does_not_know_become_null(tmp_path: Path) -> None:
    writer(tmp_path).write({"step": 1, "loss": math.nan, "seconds": {"step": math.inf}})
    row = read_rows(str(tmp_path))[0]
    assert row["loss"] is None and row["seconds"] == {"step": None}


def test_restart_drops_rows_beyond_the_restored_step(tmp_path: Path) -> None:
    first = writer(tmp_path)
    for step in (10, 20, 30, 40):
        first.write({"step": step, "seconds": {"step": 2.0, "lost": 0.5}})
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b'{"step":50,"lo')
    second = writer(tmp_path)
    assert second.truncate_after(20) == 5.0
    assert steps(tmp_path) == [10, 20]
    second.write({"step": 30})
    assert steps(tmp_path) == [10, 20, 30]
    second.truncate_after(0)
    assert steps(tmp_path) == []


def test_torn_line_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step":1}\n{"step":2')
    assert steps(tmp_path) == [1]
    assert steps(tmp_path / "nothing here") == []


def test_full_disk_warns_once_and_loses_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    written = writer(tmp_path, warn=said.append)
    written.write({"step": 1})
    size = (tmp_path / "metrics.jsonl").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Half a row fits: what was torn has to be cut off again.
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, hard))
    try:
        written.write({"step": 2})
        written.write({"step": 3})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "metrics.jsonl").stat().st_size == size
    assert len(said) == 1 and "metrics.jsonl" in said[0] and "training goes on" in said[0]
    written.write({"step": 4})
    assert steps(tmp_path) == [1, 2, 3, 4]
    assert len(said) == 2 and "written again" in said[1]


def test_backlog_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "BACKLOG", 2)
    said: list[str] = []
    written = writer(tmp_path / "run", warn=said.append)
    for step in range(5):
        written.write({"step": step})
    (tmp_path / "run").mkdir()
    written.close()
    assert steps(tmp_path / "run") == [3, 4]


def test_rows_of_equal_seeds_are_equal_without_their_times(tmp_path: Path) -> None:
    for name, rate in (("a", 10.0), ("b", 11.0)):
        (tmp_path / name).mkdir()
        writer(tmp_path / name).write(
            {"step": 1, "loss": 2.0, "tokens_per_second": rate, "seconds": {"step": rate}, "eta": 1}
        )
    first, second = (read_rows(str(tmp_path / name)) for name in ("a", "b"))
    assert first != second
    assert timeless(first[0]) == timeless(second[0]) == {"kind": "train", "step": 1, "loss": 2.0}


def test_damaged_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step":1}\n{"step":\n{"step":3}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl.*line 2"):
        read_rows(str(tmp_path))


def test_unreadable_record_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(StorageError, match=r"metrics\.jsonl"):
        read_rows(str(tmp_path))


def test_bucket_gets_numbered_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    run = "memory://test-metrics-run"
    monkeypatch.setattr(metrics, "PIECE_SECONDS", 0.0)
    first = MetricsWriter(run, warn=pytest.fail)
    assert first.truncate_after(0) == 0.0
    for step in (1, 2, 3):
        first.write({"step": step, "seconds": {"step": 1.0}})
    first.close()
    assert len(files.names(f"{run}/metrics")) > 2
    assert len(files.names(f"{run}/events")) == 1
    second = MetricsWriter(run, warn=pytest.fail)
    assert second.truncate_after(2) == 1.0
    assert steps(run) == [1, 2]
    monkeypatch.setattr(metrics, "PIECE_SECONDS", 1e9)
    second.write({"step": 3})
    assert steps(run) == [1, 2]
    second.flush()
    assert steps(run) == [1, 2, 3]
    second.write({"step": 4})
    second.close()
    assert steps(run) == [1, 2, 3, 4]


def test_event_files_hold_the_numbers_and_forget_after_a_restart(tmp_path: Path) -> None:
    first = writer(tmp_path, events=True)
    first.write({"step": 10, "loss": 2.5, "seconds": {"step": 1.5}, "note": "text", "gone": None})
    first.write({"step": 20, "kind": "evaluation", "mlm_loss": 4.0})
    first.close()
    events = read_events(tmp_path)
    assert events[0].file_version == "brain.Event:2"
    scalars = [(e.step, v.tag, v.simple_value) for e in events[1:] for v in e.summary.value]
    assert scalars == [
        (10, "train/loss", 2.5),
        (10, "train/seconds/step", 1.5),
        (20, "evaluation/mlm_loss", 4.0),
    ]
    second = writer(tmp_path, events=True)
    second.truncate_after(10)
    second.close()
    restarts = [e.step for e in read_events(tmp_path) if e.session_log.status]
    assert restarts == [11]


def test_full_disk_under_the_event_file_does_not_end_the_run(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "events").write_text("a file where the folder should be")
    written = writer(tmp_path, events=True, warn=said.append)
    written.write({"step": 1})
    written.write({"step": 2})
    written.close()
    assert steps(tmp_path) == [1, 2]
    assert len(said) == 1 and "event files" in said[0]


def read_events(run: Path) -> list:
    """All events of a run; the framing is TFRecord's (length, crc, bytes, crc)."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted((run / "events").iterdir(), key=os.path.getmtime):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            found.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found

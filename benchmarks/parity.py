"""Prints how far this package is from the original ALBERT and from Transformers.

    python benchmarks/parity.py [--all]

runs the tests of tests/parity (on the folder in ALBERT_JAX_GOLDEN) and of the parameter counts of
the paper, and prints a table: check, cases, largest difference, bound. `--all`
includes the tests that take minutes.
Exit status 1 where a bound is broken or nothing was compared.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NUMBER = r"([-+.\deinfa]+)"
LINE = re.compile(rf"^(.+?): {NUMBER} \(bound {NUMBER}\)$", re.M)


class Collector:
    """Gathers the lines "check: difference (bound b)" that parity tests print."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], list[tuple[float, float]]] = {}
        self.passed: dict[str, int] = {}
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called by pytest for each phase of each test."""
        file = Path(report.nodeid.split("::")[0]).stem.removeprefix("test_")
        if report.failed:
            self.failed.append(report.nodeid)
        if report.when != "call":
            return
        if report.passed:
            self.passed[file] = self.passed.get(file, 0) + 1
        for check, difference, bound in LINE.findall(report.capstdout):
            found = (float(difference), float(bound))
            self.rows.setdefault((file, check), []).append(found)


def table(collector: Collector) -> str:
    """The table, one line per check; files that compare without a number say how many passed."""
    lines = [f"{'check':<58} {'cases':>5} {'largest difference':>19} {'bound':>9}"]
    for (file, check), found in sorted(collector.rows.items()):
        worst, bound = max(d for d, _ in found), min(b for _, b in found)
        lines.append(f"{f'{file}: {check}':<58} {len(found):>5} {worst:>19.3g} {bound:>9.3g}")
    told = {file for file, _ in collector.rows}
    for file, count in sorted(collector.passed.items()):
        if file not in told:
            lines.append(f"{file + ': exact rules':<58} {count:>5} {'0':>19} {'0':>9}")
    lines += [f"FAILED {name}" for name in collector.failed]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Runs the tests quietly and prints the table."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    collector = Collector()
    chosen = [] if "--all" in arguments else ["-m", "not slow"]
    names = ["tests/parity", "tests/model/test_sharing.py"]
    code = pytest.main(["-q", "-p", "no:cacheprovider", *chosen, *names], plugins=[collector])
    print(table(collector))
    return int(code != 0 or not collector.rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

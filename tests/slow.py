"""Which tests are slow: `make test-fast` leaves them out, `make slow` measures them again.

A test is slow if all its cases together, with what they set up, take over a second; slow.txt has the names. The first
test that runs sets up what others share, so `make slow` runs what is left once more without the slow ones. A test that
needs an export of every cell is slow in any case.
"""

from collections import Counter
from pathlib import Path

import pytest

NAMES = Path(__file__).with_name("slow.txt")
SECONDS = 1.0
FIXTURES = {"exported"}


def mark(items):
    """Give every case of a slow test the mark `slow`."""
    names = set(NAMES.read_text().splitlines())
    for item in items:
        if item.originalname in names or FIXTURES & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)


class Stopwatch:
    """Writes the names of a run's slow tests to slow.txt."""

    def __init__(self):
        self.seconds = Counter()

    def pytest_runtest_logreport(self, report):
        """Add up a test's cases, setup and teardown too."""
        name = report.nodeid.partition("[")[0].rpartition("::")[2]
        self.seconds[name] += report.duration

    def pytest_sessionfinish(self):
        """Write the names, sorted, a line each; those of tests that did not run stay."""
        names = set(NAMES.read_text().splitlines()) - set(self.seconds)
        names |= {name for name, seconds in self.seconds.items() if seconds > SECONDS}
        NAMES.write_text("".join(f"{name}\n" for name in sorted(names)))

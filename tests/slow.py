"""Which tests are slow: `make test-fast` leaves them out, `make slow` measures them again.

A test is slow if all its cases together, with what they set up, take over a second; slow.txt has the ids of such tests,
without their cases. The first
test that runs sets up what others share, so `make slow` runs what is left once more without the slow ones. A test that
needs an export of every cell is slow in any case.
"""

from collections import Counter
from pathlib import Path

import pytest

IDS = Path(__file__).with_name("slow.txt")
SECONDS = 1.0
FIXTURES = {"exported"}


def mark(items):
    """Give every case of a slow test the mark `slow`."""
    ids = set(IDS.read_text().splitlines())
    for item in items:
        if _test(item.nodeid) in ids or FIXTURES & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)


class Stopwatch:
    """Writes the ids of a run's slow tests to slow.txt."""

    def __init__(self):
        self.seconds = Counter()

    def pytest_runtest_logreport(self, report):
        """Add up a test's cases, setup and teardown too."""
        self.seconds[_test(report.nodeid)] += report.duration

    def pytest_sessionfinish(self):
        """Write the ids, sorted, a line each; those of tests that did not run stay."""
        ids = set(IDS.read_text().splitlines()) - set(self.seconds)
        ids |= {id for id, seconds in self.seconds.items() if seconds > SECONDS}
        IDS.write_text("".join(f"{id}\n" for id in sorted(ids)))


def _test(nodeid):
    """Return the id of the test that a case belongs to."""
    return nodeid.partition("[")[0]

"""A plugin of pytest: a test whose program is missing is skipped, and the end of the run says what was not tested.

In CI, which is where `CI` is set, nothing is skipped so: the test fails.
"""

import os
from collections import Counter
from collections.abc import Iterator

import pytest

from batch_assets_tests.support.programs import MissingProgramError

_MISSING = "missing program"


def in_ci() -> bool:
    """Returns whether the tests run in CI, where all that they need must be there."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Skips a test whose fixtures miss a program."""
    yield from _skipping(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Skips a test that misses a program itself."""
    yield from _skipping(item)


def _skipping(item: pytest.Item) -> Iterator[None]:
    try:
        yield
    except MissingProgramError as missing:
        if in_ci():
            raise
        # What a worker of pytest-xdist reports reaches the process that writes the summary.
        item.user_properties.append((_MISSING, f"{missing.what} ({missing.advice})"))
        pytest.skip(str(missing))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says in one line what was not tested, and how to have it tested."""
    missing = Counter(
        what
        for report in terminalreporter.stats.get("skipped", [])
        for name, what in report.user_properties
        if name == _MISSING
    )
    if missing:
        parts = [f"{count} {'test needs' if count == 1 else 'tests need'} {what}" for what, count in missing.items()]
        terminalreporter.write_line(f"NOT TESTED: {'; '.join(parts)}", yellow=True)

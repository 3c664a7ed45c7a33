"""Fixtures that all tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import hypothesis
import pytest

# How long an example takes says more of the machine than of the code; the time limit of a test catches what hangs.
hypothesis.settings.register_profile("any_machine", deadline=None)
hypothesis.settings.load_profile("any_machine")


def pytest_configure() -> None:
    """A shell's background jobs, and so all that they start, ignore Ctrl-C; the tests of it need it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# A property of a test that makes random wrong calls: the operator, and what became of how many calls.
FUZZ = "wrong calls"


def pytest_terminal_summary(terminalreporter) -> None:
    """What became of the random wrong calls, a line for each operator, also of tests on other processes."""
    reports = [report for which in ("passed", "failed") for report in terminalreporter.getreports(which)]
    fuzzed = [value for report in reports for name, value in report.user_properties if name == FUZZ]
    if not fuzzed:
        return
    terminalreporter.section("wrong calls of each operator")
    for operator, outcomes in sorted(fuzzed):
        counts = ", ".join(f"{count:,} {outcome}" for outcome, count in ({"wrong": 0} | outcomes).items())
        terminalreporter.line(f"{operator}: {sum(outcomes.values()):,} calls, of which {counts}")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of real data, from the environment variable NNUNETV2_LIGHTM_DATA; skips where there is none."""
    value = os.environ.get("NNUNETV2_LIGHTM_DATA")
    if not value:
        pytest.skip("real data: NNUNETV2_LIGHTM_DATA is not set")
    root = Path(value)
    if not root.is_dir():
        pytest.skip(f"real data: NNUNETV2_LIGHTM_DATA is {value}, which is not a folder")
    return root


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return Path(__file__).resolve().parent.parent

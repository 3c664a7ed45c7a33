"""Fixtures that all tests share."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from xdist.scheduler import LoadFileScheduling

# How long an example takes says more of the machine than of the code; the time limit of a test catches what hangs.
hypothesis.settings.register_profile("any_machine", deadline=None)
hypothesis.settings.load_profile("any_machine")

REQUIRE_COMPILED = "NNUNETV2_LIGHTM_REQUIRE_COMPILED"


def pytest_configure(config: pytest.Config) -> None:
    """What a shell starts in the background ignores Ctrl-C, and under nohup a hangup; the tests of both need them.

    In CI nothing is tested without the compiled libraries, whose tests would be skipped.
    """
    if os.environ.get(REQUIRE_COMPILED) == "1" and not hasattr(config, "workerinput"):
        missing = missing_libraries()
        if missing:
            pytest.exit("\n".join([f"{REQUIRE_COMPILED} is 1, but", *missing]), returncode=1)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.name != "nt" and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def missing_libraries() -> list[str]:
    """What is said of a compiled library that does not load."""
    from nnunetv2_lightm.ops.backends.native_library import library_or_reason

    found = library_or_reason()
    missing = [f"the compiled library {found}"] if isinstance(found, str) else []
    try:
        from lightm_runtime import EngineError
        from lightm_runtime.interface import library
    except ImportError as error:
        return [*missing, f"lightm-runtime is not installed ({error}): pip install ./runtime"]
    try:
        library()
    except EngineError as error:
        missing.append(f"lightm-runtime: {error}")
    return missing


# Folders whose files share what takes long to make: with `--dist loadfile` one process runs all of a folder.
SHARING = ("tests/nnunet_prediction", "tests/deploy/web")
# What takes longest, one process each: it is handed out first.
LONGEST = ("tests/ops/test_triton_gpu.py", "tests/ops/test_triton_compiled.py")


def work_unit(nodeid: str) -> str:
    """What one process runs as a whole: a file, because its tests share fixtures, or a folder of them."""
    file = nodeid.partition("::")[0]
    return next((folder for folder in SHARING if file.startswith(f"{folder}/")), file)


class OneProcessAFile(LoadFileScheduling):
    """Hands out files in the order in which they were collected."""

    def __init__(self, config: pytest.Config, log: object) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return work_unit(nodeid)


@pytest.hookimpl(optionalhook=True)  # xdist may be switched off
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadFileScheduling | None:
    return OneProcessAFile(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On several processes files with long tests come first, so that short ones fill the end; else they come last."""
    long = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("end_to_end")}
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: (not item.nodeid.startswith(LONGEST), item.path not in long))
    else:
        items.sort(key=lambda item: item.path in long)


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


@pytest.fixture(scope="module")
def module_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for what all tests of a module use, such as models; it goes with the module unless a test failed."""
    failed = request.session.testsfailed
    folder = tmp_path_factory.mktemp("module")
    yield folder
    if request.session.testsfailed == failed:
        shutil.rmtree(folder)


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

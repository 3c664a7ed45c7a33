"""How a test run hands out its work, and what it says at its end."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from nnunetv2_lightm.ops.backends import native_library

from . import conftest
from .conftest import (
    FUZZ,
    LONGEST,
    REQUIRE_COMPILED,
    SHARING,
    pytest_collection_modifyitems,
    pytest_terminal_summary,
    work_unit,
)


class Terminal:
    """Stands in for pytest's terminal reporter."""

    def __init__(self, passed=(), failed=()):
        self.reports = {"passed": passed, "failed": failed}
        self.said = []

    def getreports(self, outcome):
        return self.reports[outcome]

    def section(self, title):
        self.said.append(title)

    line = section


def report(*properties):
    return SimpleNamespace(user_properties=list(properties))


def test_what_became_of_the_wrong_calls():
    right = report(("another", 1), (FUZZ, ("scan", {"refused": 1500, "accepted and as specified": 7})))
    terminal = Terminal([report(), right], [report((FUZZ, ("layer", {"refused": 3, "wrong": 1})))])
    pytest_terminal_summary(terminal)
    assert terminal.said == [
        "wrong calls of each operator",
        "layer: 4 calls, of which 1 wrong, 3 refused",
        "scan: 1,507 calls, of which 0 wrong, 1,500 refused, 7 accepted and as specified",
    ]


def test_nothing_is_said_where_no_wrong_calls_were_made():
    terminal = Terminal([report()])
    pytest_terminal_summary(terminal)
    assert not terminal.said


def test_what_one_process_runs_as_a_whole(repository):
    assert work_unit("tests/ops/test_on_gpu.py::test_layer[a::b]") == "tests/ops/test_on_gpu.py"
    for folder in SHARING:
        (first, *others) = sorted((repository / folder).glob("test_*.py"))
        units = {work_unit(f"{folder}/{file.name}::test") for file in (first, *others)}
        assert others and units == {folder}


def test_what_takes_longest_is_handed_out_first(repository):
    def item(file, mark=None):
        return SimpleNamespace(nodeid=f"{file}::test", path=file, get_closest_marker=lambda name: name == mark)

    assert all((repository / file).is_file() for file in LONGEST)
    short, slow, longest = item("tests/a.py"), item("tests/b.py", "slow"), item(LONGEST[0], "slow")
    for config, order in (
        (SimpleNamespace(workerinput={}), [longest, slow, short]),
        (SimpleNamespace(), [short, slow, longest]),
    ):
        items = [short, slow, longest]
        pytest_collection_modifyitems(config, items)
        assert items == order


@pytest.mark.parametrize("required", ["1", "0"])
def test_where_compiled_libraries_are_required_nothing_runs_without_them(monkeypatch, required):
    monkeypatch.setenv(REQUIRE_COMPILED, required)
    monkeypatch.setattr(conftest, "missing_libraries", lambda: ["the library does not load"])
    ended = None
    try:
        conftest.pytest_configure(SimpleNamespace())
    except pytest.exit.Exception as error:
        ended = (error.msg, error.returncode)
    said = f"{REQUIRE_COMPILED} is 1, but\nthe library does not load"
    assert ended == ((said, 1) if required == "1" else None)
    conftest.pytest_configure(SimpleNamespace(workerinput={}))  # the process that started this one has looked


def test_both_compiled_libraries_are_looked_at(monkeypatch):
    runtime = pytest.importorskip("lightm_runtime.interface", reason="lightm-runtime is not installed")

    def does_not_load():
        raise runtime.EngineError("the engine does not load")

    monkeypatch.setattr(native_library, "library_or_reason", lambda: "was not compiled")
    monkeypatch.setattr(runtime, "library", does_not_load)
    assert conftest.missing_libraries() == [
        "the compiled library was not compiled",
        "lightm-runtime: the engine does not load",
    ]

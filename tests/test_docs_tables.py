"""The tables of the documentation name tests; all of them must exist."""

from __future__ import annotations

import ast
import re
import string
from functools import cache
from pathlib import Path

import pytest

from .markdown_tables import tables

ROOT = Path(__file__).resolve().parent.parent
DOCS = sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)(?:\[[^`]*\])?`")


@cache
def functions_of(file: Path) -> set[str]:
    """Names of the test functions in a file; none if there is no such file."""
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if file.is_file() else ()
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@pytest.mark.parametrize("document", DOCS, ids=lambda path: path.relative_to(ROOT / "docs").as_posix())
def test_tests_that_a_document_names_exist(document):
    named = TEST.findall(document.read_text(encoding="utf-8"))
    assert [f"{file}::{name}" for file, name in named if name not in functions_of(ROOT / file)] == []


@pytest.mark.parametrize("document", DOCS, ids=lambda path: path.relative_to(ROOT / "docs").as_posix())
def test_each_row_of_a_table_with_tests_names_one(document):
    for header, rows in tables(document.read_text(encoding="utf-8")):
        if "test" in header:
            assert [row for row in rows if not TEST.search(row[header.index("test")])] == []


def test_features_are_listed():
    features = dict.fromkeys(TEST.findall((ROOT / "docs" / "features.md").read_text(encoding="utf-8")))
    assert len(features) > 20


def test_each_kind_of_case_has_a_row():
    rows = [row for _, rows in tables((ROOT / "docs" / "cases.md").read_text(encoding="utf-8")) for row in rows]
    assert "".join(row[0] for row in rows[:26]) == string.ascii_uppercase
    assert all(row[1] and row[2] for row in rows)


def test_a_missing_test_is_seen():
    assert "test_a_missing_test_is_seen" in functions_of(Path(__file__))
    assert "test_nothing" not in functions_of(Path(__file__))
    assert functions_of(ROOT / "tests" / "nothing.py") == set()
    assert TEST.findall("| x | `tests/a/test_b.py::test_c[d-1]` |") == [("tests/a/test_b.py", "test_c")]

"""Floors of dependencies: no version with a known hole in code that reads files of unknown origin."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parent.parent
PROJECT, RUNTIME = (
    tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for folder in (ROOT, ROOT / "runtime")
)
EXTRAS = PROJECT["optional-dependencies"]


def requirement(name: str, lines: list[str]) -> Requirement:
    (found,) = [one for one in map(Requirement, lines) if one.name == name]
    return found


@pytest.mark.parametrize(
    ("name", "lines", "holed", "sound"),
    [
        (
            "torch",
            PROJECT["dependencies"],
            ("2.1.2", "2.5.1", "2.8.0", "2.9.1"),
            "2.10.0",
        ),  # CVE-2025-32434, CVE-2026-24747
        ("pillow", PROJECT["dependencies"], ("9.2.0", "10.0.0", "12.1.1"), "12.2.0"),  # CVE-2023-4863, CVE-2026-42311
        ("pillow", RUNTIME["dependencies"], ("9.2.0", "10.0.0", "12.1.1"), "12.2.0"),
        ("monai", EXTRAS["baselines"], ("1.5.0", "1.5.1"), "1.5.2"),  # CVE-2025-58756, CVE-2026-21851
        ("monai", EXTRAS["metrics"], ("1.5.0", "1.5.1"), "1.5.2"),
    ],
)
def test_a_version_with_a_known_hole_is_not_accepted(name, lines, holed, sound):
    specifier = requirement(name, lines).specifier
    assert [version for version in holed if specifier.contains(version)] == []
    assert specifier.contains(sound)

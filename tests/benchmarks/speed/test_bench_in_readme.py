"""The figures of speed and memory in the README and docs/speed.md are those in benchmarks/results."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks.speed.harness.results import RESULTS, Row
from benchmarks.speed.resenc import SIZES

from ...markdown_tables import tables

ROOT = Path(__file__).resolve().parents[3]


def section(page: str, heading: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]


SECTION = section("README.md", "Speed and memory")
WITHOUT_AVX512 = section("docs/speed.md", "Without AVX-512")
RESENC_M = section("docs/speed.md", "Against ResEnc M")
NAMES = {"forward": "forward", "training step": "training"}


def name_of(cell: str) -> str:
    """The measured row's name, from the first cell of a table's: "forward, 64x64x64"."""
    work, patch = cell.split(", ")
    sides = patch.split("x")
    return f"{NAMES[work]}_{len(sides)}d_{sides[0]}"


def ratios(group: str) -> dict[str, str]:
    """Ratio of each row of a result file, as the README writes it."""
    rows = json.loads((RESULTS / f"{group}.json").read_text(encoding="utf-8"))["rows"]
    return {row.name: f"{row.ratio:.2f}" for row in map(Row.from_json, rows) if row.ratio is not None}


@pytest.mark.parametrize("row", tables(WITHOUT_AVX512)[0][1], ids=lambda row: row[0])
def test_each_row_without_avx512(row):
    name = name_of(row[0])
    assert row[1:] == [ratios("avx2/networks")[name], ratios("networks")[name]]


def test_what_the_readme_says_without_avx512():
    said = re.findall(r"\d+\.\d+", SECTION.split("AVX2 alone")[1].split("times faster")[0])
    assert said == [row[1] for row in tables(WITHOUT_AVX512)[0][1]]


@pytest.mark.parametrize("row", tables(SECTION)[0][1], ids=lambda row: row[0])
def test_each_row_of_the_table(row):
    name = name_of(row[0])
    measured = ratios("networks") | ratios("transient_memory")
    assert row[1:] == [measured[name], measured[f"memory_{name}"]]


def test_what_it_says_of_resenc_m():
    measured = ratios("resenc")
    said = re.findall(r"\d+\.\d+", RESENC_M)
    times = [measured[f"resenc_{work}_{size}"] for work in NAMES.values() for size in SIZES]
    memory = sorted(ratio for name, ratio in measured.items() if "memory" in name)
    assert said == [*times, memory[0], memory[-1]]


def test_what_it_says_of_training_steps_with_its_own_recipe():
    """Also as a share of nnU-Net's time, in the README's introduction, where 2D is the same within the rounding."""
    measured = [ratios("recipe")[f"training_own_{size}"] for size in SIZES]
    (paragraph,) = [part for part in SECTION.split("\n\n") if "own recipe" in part]
    assert re.findall(r"\d+\.\d+", paragraph.split("On one with")[0]) == measured
    introduction = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## ")[0]
    shares = re.search(r"training step\s+(\d+) %; in 2D it is \d+ % and (\d+) %", introduction).groups()
    assert list(shares) == [f"{100 / float(ratio):.0f}" for ratio in measured]

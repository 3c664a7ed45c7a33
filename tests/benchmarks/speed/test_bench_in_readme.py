"""The README's figures of speed and memory are those in benchmarks/results."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks.speed.harness.results import RESULTS, Row
from benchmarks.speed.resenc import SIZES

from ...markdown_tables import tables

SECTION = (
    (Path(__file__).resolve().parents[3] / "README.md")
    .read_text(encoding="utf-8")
    .split("\n## Speed and memory\n")[1]
    .split("\n## ")[0]
)
NAMES = {"forward": "forward", "training step": "training"}


def ratios(group: str) -> dict[str, str]:
    """Ratio of each row of a result file, as the README writes it."""
    rows = json.loads((RESULTS / f"{group}.json").read_text(encoding="utf-8"))["rows"]
    return {row.name: f"{row.ratio:.2f}" for row in map(Row.from_json, rows) if row.ratio is not None}


@pytest.mark.parametrize("row", tables(SECTION)[0][1], ids=lambda row: row[0])
def test_each_row_of_the_table(row):
    work, patch = row[0].split(", ")
    sides = patch.split("x")
    name = f"{NAMES[work]}_{len(sides)}d_{sides[0]}"
    measured = ratios("networks") | ratios("transient_memory")
    assert row[1:] == [measured[name], measured[f"memory_{name}"]]


def test_what_it_says_of_resenc_m():
    measured = ratios("resenc")
    said = re.findall(r"\d+\.\d+", SECTION.split("ResEnc M")[1])
    times = [measured[f"resenc_{work}_{size}"] for work in NAMES.values() for size in SIZES]
    memory = sorted(ratio for name, ratio in measured.items() if "memory" in name)
    assert said == [*times, memory[0], memory[-1]]

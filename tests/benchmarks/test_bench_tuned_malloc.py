"""What the README says about malloc is what tuned_malloc.py sets and has measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import tuned_malloc

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results"


def seconds(group: str, row: str, side: str) -> float:
    rows = json.loads((RESULTS / f"{group}.json").read_text(encoding="utf-8"))["rows"]
    (found,) = [r for r in rows if r["name"] == row]
    return found[side]["median"]


def test_readme_names_the_variables():
    (line,) = [line for line in README.splitlines() if line.startswith("export MALLOC_")]
    assert dict(word.split("=", 1) for word in line.split()[1:]) == tuned_malloc.VARIABLES


def test_readme_has_the_measured_figures():
    sides = "ours", "beside"
    before = [seconds("networks", "training_3d_64", side) for side in sides]
    after = [seconds("tuned_malloc", "training_3d_64_tuned", side) for side in sides]
    ours, theirs = (tuned / default for tuned, default in zip(after, before, strict=True))
    said = (
        f"A training step of LightMUNet at 64x64x64 takes {ours:.2f} of its time then, one of nnU-Net's network "
        f"{theirs:.2f} ({1000 * after[0]:.0f} ms after {1000 * before[0]:.0f}, {after[1]:.2f} s after {before[1]:.2f};"
    )
    assert said in re.sub(r"\s+", " ", README)

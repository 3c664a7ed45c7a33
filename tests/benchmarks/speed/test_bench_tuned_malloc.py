"""What the settings page says about malloc is what tuned_malloc.py sets and has measured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.speed import report, tuned_malloc
from benchmarks.speed.harness.results import RESULTS, Row

SETTINGS = (Path(__file__).resolve().parents[3] / "docs" / "guides" / "settings.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def published():
    """Rows by name."""
    rows = [Row.from_json(row) for group in report.load(RESULTS) for row in group["rows"]]
    return {row.name: row for row in rows}


def test_settings_page_names_the_variables():
    (line,) = [line for line in SETTINGS.splitlines() if line.startswith("export MALLOC_")]
    assert dict(word.split("=", 1) for word in line.split()[1:]) == tuned_malloc.VARIABLES


def test_settings_page_has_the_measured_figures(published):
    default, tuned = published["training_3d_64"], published["training_3d_64_tuned"]
    ours, our_default = tuned.ours.median, default.ours.median
    theirs, their_default = tuned.baseline.median, default.baseline.median
    said = (
        f"A training step of LightMUNet at 64x64x64 then takes {ours / our_default:.2f} of the time, one of nnU-Net's "
        f"network {theirs / their_default:.2f} ({1000 * ours:.0f} ms instead of {1000 * our_default:.0f}, "
        f"{theirs:.2f} s instead of {their_default:.2f};"
    )
    assert said in re.sub(r"\s+", " ", SETTINGS)

"""A quick run of the recipe's benchmark: the optimizer's part of a step, and the whole step against nnU-Net's."""

from __future__ import annotations

import json

import pytest

from benchmarks.speed import recipe

pytestmark = pytest.mark.slow


def test_a_quick_run_measures_the_optimizers_part_and_nnunets_network(tmp_path):
    assert recipe.main(["--quick", "--out", str(tmp_path)]) == 0
    rows = {row["name"]: row for row in json.loads((tmp_path / "recipe.json").read_text(encoding="utf-8"))["rows"]}
    shares = {f"recipe_{size}" for size in recipe.QUICK_SIZES}
    assert set(rows) == shares | {f"training_own_{size}" for size in recipe.COMPARED}
    assert all(rows[name]["kind"] == "share" and 0 < rows[name]["ratio"] < 1 for name in shares)
    assert "PlainConvUNet" in rows["training_own_3d_64"]["baseline_name"]

"""A quick run of the comparison with ResEnc M: time and memory, against its network and not nnU-Net's default one."""

from __future__ import annotations

import json

import pytest

from benchmarks.speed import resenc
from benchmarks.speed.harness.models import RESENC, nnunet_unet
from nnunetv2_lightm.complexity.nnunet_network import RESENC_BLOCKS

pytestmark = pytest.mark.slow


def test_a_quick_run_measures_time_and_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(resenc, "SIZES", ("2d_512",))
    monkeypatch.setattr(resenc, "WORKS", ("training",))  # each row of memory takes three processes
    assert resenc.main(["--quick", "--out", str(tmp_path)]) == 0
    rows = {row["name"]: row for row in json.loads((tmp_path / "resenc.json").read_text(encoding="utf-8"))["rows"]}
    assert set(rows) == {"resenc_training_2d_512", "resenc_memory_training_2d_512"}
    assert all("ResEnc M" in row["baseline_name"] and row["ratio"] > 0 for row in rows.values())


@pytest.mark.parametrize(("spatial_dims", "stages"), [(2, 8), (3, 6)])
def test_its_encoder_has_the_presets_residual_blocks(spatial_dims, stages):
    network = nnunet_unet(spatial_dims, "contiguous", RESENC)
    assert tuple(len(stage.blocks) for stage in network.encoder.stages) == RESENC_BLOCKS[:stages]

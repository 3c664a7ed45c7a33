"""Checkpoints that are cut off or damaged."""

from __future__ import annotations

import torch

from nnunetv2_lightm.checkpoints.integrity import is_whole_checkpoint


def test_checkpoints_that_are_cut_off_or_damaged(tmp_path):
    file = tmp_path / "checkpoint_final.pth"
    torch.save({"network_weights": {"a": torch.arange(1000.0)}}, file)
    whole = file.read_bytes()
    assert is_whole_checkpoint(file)
    for damaged in (whole[:-10], whole[:100], b"", whole[:2000] + b"\x55" + whole[2001:]):
        file.write_bytes(damaged)
        assert not is_whole_checkpoint(file)

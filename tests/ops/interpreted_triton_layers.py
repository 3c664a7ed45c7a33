"""The layers on Triton's kernels under its interpreter. Needs TRITON_INTERPRET=1 from the start on.

Not collected by itself: test_triton_gpu.py runs it in a process of its own.
"""

from __future__ import annotations

import pytest
import torch

from nnunetv2_lightm.ops.backends.recomputing import slabs
from nnunetv2_lightm.ops.backends.triton_kernels import depthwise, scan_launches

from .triton_layers import LAYERS, MAPS, check_depthwise, check_layer, check_upsampling, triton_runs


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch, poisoned_memory):
    """Several slabs, chunks, spans and runs of planes in a small image; unwritten memory is NaN."""
    assert triton_runs("cpu")
    monkeypatch.setattr(slabs, "SLAB_ELEMENTS", 300)
    monkeypatch.setattr(scan_launches, "CHUNK_LENGTH", 8)
    monkeypatch.setattr(scan_launches, "GROUP_CHUNKS", 2)
    monkeypatch.setattr(depthwise, "RUN", 4)
    monkeypatch.setattr(depthwise, "TILE_ELEMENTS", 64)


@pytest.mark.parametrize("case", LAYERS)
def test_layer(case):
    check_layer(case, "cpu", torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_layer_in_other_dtypes(dtype):
    check_layer("2d, odd", "cpu", dtype)


@pytest.mark.parametrize("case", MAPS)
def test_depthwise(case, monkeypatch):
    monkeypatch.setattr(depthwise, "TILE_ELEMENTS", 32)
    check_depthwise(case, "cpu", torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_depthwise_in_other_dtypes(dtype):
    check_depthwise("2d", "cpu", dtype)


def test_upsampling():
    check_upsampling("cpu", torch.float16)

"""What only the Triton backend has: several tiles, groups and launches. Needs TRITON_INTERPRET=1 from the start on.

Not collected by itself: test_triton_gpu.py runs it in a process of its own.
"""

from __future__ import annotations

import pytest
import torch

from nnunetv2_lightm.ops import select_backend
from nnunetv2_lightm.ops.backends import triton_gpu

from .cases import NAMES, OPTIONAL, TOLERANCES, cast, compare, grads_for, make_inputs, run

BACKEND = triton_gpu.NAME
FLOAT32 = TOLERANCES[torch.float32]


@pytest.fixture
def small_sizes(monkeypatch):
    """Several chunks, groups of chunks, groups of groups, tiles of channels and parts of the backward pass."""
    monkeypatch.setattr(triton_gpu, "CHUNK_LENGTH", 4)
    monkeypatch.setattr(triton_gpu, "GROUP_CHUNKS", 2)
    monkeypatch.setattr(triton_gpu, "TILE_ELEMENTS", 16)
    monkeypatch.setattr(triton_gpu, "BACKWARD_TILE_ELEMENTS", 8)
    monkeypatch.setattr(triton_gpu, "SPAN", 2)
    monkeypatch.setattr(triton_gpu, "CARRY_ELEMENTS", 8)
    monkeypatch.setattr(triton_gpu, "WORK_ELEMENTS", 2 * 3 * 5 * 5)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("without", [(), OPTIONAL], ids=str)
def test_many_tiles_groups_and_parts(small_sizes, without):
    compare(make_inputs(2, 23, 5, 3, without=without), BACKEND, TOLERANCES[torch.float64])


@pytest.mark.parametrize("d_inner", [1, 12, 33])
@pytest.mark.parametrize("d_state", [1, 5, 16, 32, 40])
def test_states_and_channels_that_fill_no_tile(d_state, d_inner):
    compare(make_inputs(1, 9, d_inner, d_state, dtype=torch.float32), BACKEND, FLOAT32)


def test_long_sequence():
    compare(make_inputs(1, 1000, 3, 2, dtype=torch.float32), BACKEND, FLOAT32)


@pytest.mark.parametrize("name", NAMES)
def test_nan_goes_where_it_goes_in_the_reference(name):
    inputs = make_inputs(1, 9, 5, 3, dtype=torch.float32)
    place = {1: (2,), 2: (2, 1), 3: (0, 6, 2)}[inputs[name].ndim]
    with torch.no_grad():
        inputs[name][place] = torch.nan
    expected = run(inputs, "reference", **grads_for(inputs))
    assert expected["y"].isnan().any()
    for key, value in run(inputs, BACKEND, **grads_for(inputs)).items():
        assert torch.equal(value.isnan(), expected[key].isnan()), key


def test_small_steps_keep_their_relative_precision():
    """softplus(-10 ...) ~ exp(-10 ...), far below what 1 + exp(x) can hold in float32."""
    inputs = make_inputs(1, 64, 4, 2, without=("delta_bias", "D", "z"), dtype=torch.float32)
    with torch.no_grad():
        inputs["delta"].copy_(torch.linspace(-60, -1, 64)[None, :, None].expand_as(inputs["delta"]))
        inputs["u"].abs_()
        inputs["B"].abs_()
        inputs["C"].abs_()
    wide = cast(inputs, torch.float64)
    result, expected = (run(values, backend)["y"] for values, backend in ((inputs, BACKEND), (wide, "reference")))
    assert float((result / expected - 1).abs().max()) <= 2e-5


def test_runs_on_the_cpu_by_name_alone(monkeypatch):
    assert select_backend("cpu") != BACKEND
    assert select_backend("cpu", BACKEND) == BACKEND
    monkeypatch.setenv("NNUNETV2_LIGHTM_BACKEND", BACKEND)
    assert select_backend("cpu") == BACKEND

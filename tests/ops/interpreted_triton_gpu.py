"""What only the Triton backend has: several tiles, groups and launches. Needs TRITON_INTERPRET=1 from the start on.

Not collected by itself: test_triton_gpu.py runs it in a process of its own.
"""

from __future__ import annotations

import pytest
import torch

from nnunetv2_lightm.ops import select_backend
from nnunetv2_lightm.ops.backends import torch_chunked, triton_gpu
from nnunetv2_lightm.ops.backends.recomputing import selection
from nnunetv2_lightm.ops.backends.recomputing.parameters import Gradients
from nnunetv2_lightm.ops.backends.triton_kernels import scan_launches
from nnunetv2_lightm.ops.backends.triton_kernels import selection as triton_selection

from .cases import NAMES, OPTIONAL, TOLERANCES, assert_close, cast, compare, grads_for, make_inputs, run

BACKEND = triton_gpu.NAME
FLOAT32 = TOLERANCES[torch.float32]
SELECTION = ("A", "D", "dt_bias", "dt_weight", "x_proj")


@pytest.fixture
def small_sizes(monkeypatch):
    """Several chunks, groups of chunks, groups of groups, tiles of channels, spans, groups of them and parts of the
    backward pass."""
    monkeypatch.setattr(scan_launches, "CHUNK_LENGTH", 7)
    monkeypatch.setattr(scan_launches, "GROUP_CHUNKS", 2)
    monkeypatch.setattr(scan_launches, "TILE_ELEMENTS", 16)
    monkeypatch.setattr(scan_launches, "BACKWARD_TILE_ELEMENTS", 8)
    monkeypatch.setattr(scan_launches, "SPAN", 2)
    monkeypatch.setattr(scan_launches, "CARRY_ELEMENTS", 8)
    monkeypatch.setattr(scan_launches, "WORK_ELEMENTS", 2 * 3 * 5 * 5)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("without", [(), OPTIONAL], ids=str)
def test_many_tiles_groups_and_parts(small_sizes, without):
    compare(make_inputs(2, 39, 5, 3, without=without), BACKEND, TOLERANCES[torch.float64])


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize(
    ("length", "d_inner", "d_state", "rank", "kept"),
    [(1, 1, 1, 1, 2), (7, 5, 3, 2, 1), (15, 6, 5, 3, 2), (22, 9, 2, 5, 3), (4, 20, 16, 16, 2)],
)
def test_selection(small_sizes, monkeypatch, length, d_inner, d_state, rank, kept):
    """delta, B and C from u, the scan and its gradients, from a state and back to it, as composed of PyTorch's products
    and the scan in PyTorch."""
    monkeypatch.setattr(scan_launches, "KEPT", kept)
    inputs = make_inputs(2, length, d_inner, d_state, seed=1)
    A, D, bias, u = (inputs[name].detach() for name in ("A", "D", "delta_bias", "u"))
    x_proj, dt_weight = torch.randn(rank + 2 * d_state, d_inner).double(), torch.randn(d_inner, rank).double()
    state, grad_state = torch.randn(2, 2, d_inner, d_state).double()
    convolved, grad_y = torch.randn(2, 2, length, d_inner).double()
    found = []
    for kind, scan in ((triton_selection.Selection, triton_gpu), (selection.Selection, torch_chunked)):
        ssm, gradients = kind(scan, x_proj, dt_weight, A, D, bias), Gradients(dict.fromkeys(SELECTION, A), A.dtype)
        chunks = scan.checkpoint_count(length)
        checkpoints = u.new_empty(2, chunks, d_state, d_inner)
        y, last = ssm.forward(u, ssm.select(u), checkpoints, state)
        again = ssm.replay(checkpoints, u, ssm.select(u))
        grads = ssm.backward(grad_y, grad_state, checkpoints, convolved, u, ssm.select(u), gradients)
        gradients.end_slab()
        found.append(dict(enumerate((y, last, again, *grads, *gradients.sums()))))
    assert_close(*found, TOLERANCES[torch.float64])


@pytest.mark.parametrize("d_inner", [1, 12, 33])
@pytest.mark.parametrize("d_state", [1, 5, 16, 32, 40])
def test_states_and_channels_that_fill_no_tile(d_state, d_inner):
    compare(make_inputs(1, 9, d_inner, d_state, dtype=torch.float32), BACKEND, FLOAT32)


def test_long_sequence():
    """Of chunks as long as on a GPU."""
    compare(make_inputs(1, 2 * scan_launches.CHUNK_LENGTH + 9, 3, 2, dtype=torch.float32), BACKEND, FLOAT32)


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

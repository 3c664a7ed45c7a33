"""Laws that the selective scan obeys whatever computes it, on shapes and strides that hypothesis draws."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunetv2_lightm.ops import selective_scan

from . import cases
from .cases import OPTIONAL, USABLE

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 150), st.integers(1, 35), st.integers(1, 32))
SEEDS = st.integers(0, 2**16)
drawn = settings(max_examples=25, derandomize=True, deadline=None)
pytestmark = pytest.mark.parametrize("backend", ["reference", *USABLE])


def make_inputs(shape, seed, without=()):
    inputs = cases.make_inputs(*shape, seed=seed, without=without)
    return {name: tensor.detach() for name, tensor in inputs.items() if tensor is not None}


def scan(inputs, backend, softplus=True):
    return selective_scan(**inputs, delta_softplus=softplus, return_last_state=True, backend=backend)


def along(inputs, index, names=("u", "delta", "B", "C", "z")):
    """The inputs with those that have batch and tokens indexed."""
    return {name: t[index] if name in names else t for name, t in inputs.items()}


def assert_close(result, expected):
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9)


@drawn
@given(shape=SHAPES, seed=SEEDS, without=st.sets(st.sampled_from(OPTIONAL)), data=st.data())
def test_the_beginning_does_not_know_the_end(backend, shape, seed, without, data):
    """Scanning the first tokens alone gives the same outputs for them."""
    inputs = make_inputs(shape, seed, without)
    count = data.draw(st.integers(1, shape[1]))
    y, last = scan(inputs, backend)
    first, state = scan(along(inputs, (slice(None), slice(count))), backend)
    assert_close(first, y[:, :count])
    if count == shape[1]:
        assert_close(state, last)


@drawn
@given(shape=SHAPES, seed=SEEDS)
def test_batch_entries_do_not_meet(backend, shape, seed):
    inputs = make_inputs(shape, seed)
    y, last = scan(inputs, backend)
    for i in range(shape[0]):
        alone, state = scan(along(inputs, slice(i, i + 1)), backend)
        assert_close(alone, y[i : i + 1])
        assert_close(state, last[i : i + 1])


@drawn
@given(shape=SHAPES, seed=SEEDS, data=st.data())
def test_channels_do_not_meet(backend, shape, seed, data):
    """A slice of the channels, a step apart, wherever it lies in the vectors of a kernel."""
    inputs = make_inputs(shape, seed)
    start = data.draw(st.integers(0, shape[2] - 1))
    channels = slice(start, data.draw(st.integers(start + 1, shape[2])), data.draw(st.integers(1, 3)))
    part = along(inputs, (..., channels), ("u", "delta", "D", "z", "delta_bias")) | {"A": inputs["A"][channels]}
    (y, last), (some, state) = scan(inputs, backend), scan(part, backend)
    assert_close(some, y[..., channels])
    assert_close(state, last[:, channels])


@drawn
@given(shape=SHAPES, seed=SEEDS)
def test_order_of_states_is_free(backend, shape, seed):
    inputs = make_inputs(shape, seed)
    order = torch.randperm(shape[3], generator=torch.Generator().manual_seed(seed))
    (y, last), (other, state) = scan(inputs, backend), scan(along(inputs, (..., order), ("A", "B", "C")), backend)
    assert_close(other, y)
    assert_close(state, last[..., order])


@drawn
@given(shape=SHAPES, seed=SEEDS, without=st.sets(st.sampled_from(OPTIONAL)))
def test_linear_in_the_input(backend, shape, seed, without):
    inputs = make_inputs(shape, seed, without)
    u = torch.randn(inputs["u"].shape, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    y, last = scan(inputs, backend)
    other_y, other_last = scan(inputs | {"u": u}, backend)
    sum_y, sum_last = scan(inputs | {"u": 2 * inputs["u"] - 3 * u}, backend)
    assert_close(sum_y, 2 * y - 3 * other_y)
    assert_close(sum_last, 2 * last - 3 * other_last)


@drawn
@given(shape=SHAPES, seed=SEEDS, data=st.data())
def test_a_token_of_no_duration_changes_nothing(backend, shape, seed, data):
    """exp(0 A) = 1 and 0 B u = 0: tokens put in with a step size of zero do not touch the others."""
    inputs = make_inputs(shape, seed, without=("delta_bias",))
    inputs["delta"] = inputs["delta"].abs()
    place, count = data.draw(st.integers(0, shape[1])), data.draw(st.integers(1, 70))
    longer = {}
    for name, tensor in along(inputs, slice(None)).items():
        if tensor.ndim == 3:
            filling = torch.zeros if name == "delta" else torch.randn
            new = filling(shape[0], count, tensor.shape[2], dtype=torch.float64)
            tensor = torch.cat([tensor[:, :place], new, tensor[:, place:]], 1)
        longer[name] = tensor
    (y, last), (with_them, state) = scan(inputs, backend, False), scan(longer, backend, False)
    assert_close(torch.cat([with_them[:, :place], with_them[:, place + count :]], 1), y)
    assert_close(state, last)


@drawn
@given(shape=SHAPES, seed=SEEDS, without=st.sets(st.sampled_from(OPTIONAL)), data=st.data())
def test_strides_do_not_matter(backend, shape, seed, without, data):
    """Any order of axes in memory, with gaps of NaN between the values, for inputs and for the outputs' gradient."""
    inputs = make_inputs(shape, seed, without)
    grad = torch.randn(inputs["u"].shape, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    strided = {name: _strided(tensor, data) for name, tensor in inputs.items()}
    results = []
    for given_inputs, grad_y in ((inputs, grad), (strided, _strided(grad, data))):
        leaves = {name: t.requires_grad_() for name, t in given_inputs.items()}
        y, last = scan(leaves, backend)
        results.append([y, last, *torch.autograd.grad(y, list(leaves.values()), grad_y)])
    assert_close(results[1], results[0])


def _strided(tensor, data):
    order = data.draw(st.permutations(range(tensor.ndim)))
    gap = data.draw(st.integers(1, 3))
    memory = torch.full((*(tensor.shape[axis] for axis in order), gap), torch.nan, dtype=tensor.dtype)
    view = memory[..., 0].permute([order.index(axis) for axis in range(tensor.ndim)])
    return view.copy_(tensor)

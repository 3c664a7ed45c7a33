"""Every backend against the specification: outputs, last state and all gradients; options, unwritten memory, extremes.

test_triton_gpu.py runs these tests once more under Triton's interpreter.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunetv2_lightm.ops import selective_scan
from nnunetv2_lightm.ops.backends import torch_chunks
from nnunetv2_lightm.ops.portable import selective_scan_portable
from nnunetv2_lightm.ops.reference import selective_scan_reference

from .cases import (
    CHUNK,
    INTERPRETED,
    LONG,
    NAMES,
    OPTIONAL,
    SUBSETS,
    TOLERANCES,
    USABLE,
    VECTORS,
    WIDE,
    assert_close,
    cast,
    compare,
    grads_for,
    load_vector,
    make_inputs,
    run,
)

FLOAT64, FLOAT32 = TOLERANCES[torch.float64], TOLERANCES[torch.float32]
each_backend = pytest.mark.parametrize("backend", USABLE)
each_and_the_specification = pytest.mark.parametrize("backend", ["reference", *USABLE])
pytestmark = pytest.mark.usefixtures("short_triton_chunks")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@each_and_the_specification
@pytest.mark.parametrize("vector", VECTORS)
def test_mamba_reference_vectors(data_root, vector, backend, dtype):
    inputs, options, expected = load_vector(data_root, vector, dtype)
    assert_close(run(inputs, backend, **options), expected, TOLERANCES[dtype])


@each_backend
@pytest.mark.parametrize("length", [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 8, LONG])
def test_lengths(backend, length):
    compare(make_inputs(2, length, 5, 3), backend, FLOAT64)


@pytest.mark.parametrize("softplus", [True, False], ids=["softplus", "plain"])
@each_backend
@pytest.mark.parametrize("without", SUBSETS, ids=str)
def test_every_choice_of_options(backend, without, softplus):
    inputs = make_inputs(2, CHUNK + 3, 19, 5, without=without, positive_steps=not softplus)
    compare(inputs, backend, FLOAT64, softplus=softplus)
    compare(cast(inputs, torch.float32), backend, FLOAT32, softplus=softplus)


@each_backend
@pytest.mark.parametrize("d_state", range(1, 33))
def test_every_number_of_states(backend, d_state):
    inputs = make_inputs(1, 9, 20, d_state)
    compare(inputs, backend, FLOAT64)
    compare(cast(inputs, torch.float32), backend, FLOAT32)


@each_backend
@settings(max_examples=5 if INTERPRETED else 20, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 2 * CHUNK + 12), st.integers(1, WIDE), st.integers(1, 32)),
    without=st.sets(st.sampled_from(OPTIONAL)),
    seed=st.integers(0, 2**16),
)
def test_random_shapes(backend, shape, without, seed):
    compare(make_inputs(*shape, without=without, seed=seed, dtype=torch.float32), backend, FLOAT32)


def test_several_groups_of_chunks(monkeypatch):
    """More than one group of chunks, the last one not full."""
    monkeypatch.setitem(torch_chunks.GROUP_ELEMENTS, "cpu", 2 * 8 * 4)
    compare(make_inputs(1, 64 * 6 + 5, 8, 4), "torch_chunked", FLOAT64)


@each_backend
@pytest.mark.parametrize("only", NAMES)
def test_gradient_of_one_input_alone(backend, only):
    inputs = make_inputs(2, CHUNK + 6, 6, 3)
    compare(inputs, backend, FLOAT64, only=[only], grad_last=None)


@each_backend
@pytest.mark.parametrize("output", ["y", "last_state"])
def test_gradient_through_one_output_alone(backend, output):
    results = []
    for name in (backend, "reference"):
        inputs = make_inputs(2, CHUNK + 6, 6, 3)
        y, last = selective_scan(**inputs, delta_softplus=True, return_last_state=True, backend=name)
        (y if output == "y" else last).square().sum().backward()
        results.append({n: torch.zeros_like(t) if t.grad is None else t.grad for n, t in inputs.items()})
    assert_close(*results, FLOAT64)


@each_and_the_specification
def test_non_contiguous_inputs(backend):
    inputs = make_inputs(2, CHUNK + 3, 6, 4)
    expected = run(inputs, "reference", **grads_for(inputs))
    strided = {}
    for name, tensor in inputs.items():
        padded = torch.full((*tensor.shape[:-1], 3 * tensor.shape[-1]), torch.nan, dtype=tensor.dtype)
        view = padded[..., ::3]
        view.copy_(tensor.detach())
        strided[name] = view.requires_grad_()
        assert not view.is_contiguous()
    assert_close(run(strided, backend, **grads_for(inputs)), expected, FLOAT64)


@each_backend
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_half_precision_computes_in_float32(backend, dtype):
    inputs = make_inputs(1, 2 * CHUNK + 2, 8, 16, dtype=dtype)
    y, last = selective_scan(**inputs, delta_softplus=True, return_last_state=True, backend=backend)
    assert y.dtype == dtype and last.dtype == torch.float32
    assert_close(run(inputs, backend), run(cast(inputs, torch.float64), "reference"), TOLERANCES[dtype])


@each_and_the_specification
@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_autocast_does_not_reach_the_scan(backend, autocast):
    inputs = make_inputs(1, CHUNK + 36, 8, 16, dtype=torch.float32)
    expected = run(inputs, backend)
    with torch.autocast("cpu", dtype=autocast):
        result = run(inputs, backend)
    assert_close(result, expected, 1e-7)


@each_and_the_specification
def test_output_in_a_wider_dtype(backend):
    """What the scan has computed, not rounded to the dtype of its input."""
    inputs = make_inputs(1, CHUNK + 6, 4, 3, dtype=torch.float16)
    options = {"delta_softplus": True, "backend": backend}
    y, rounded = selective_scan(**inputs, **options, out_dtype=torch.float32), selective_scan(**inputs, **options)
    assert y.dtype == torch.float32 and (y.half() == rounded).all() and (y != rounded).any()
    y.sum().backward()
    assert all(t.grad.dtype == torch.float16 for t in inputs.values())


@each_and_the_specification
def test_empty_sequence_and_batch(backend):
    for shape in ((2, 0, 4, 3), (0, 5, 4, 3)):
        inputs = make_inputs(*shape)
        y, last = selective_scan(**inputs, delta_softplus=True, return_last_state=True, backend=backend)
        assert y.shape == shape[:3] and last.shape == (shape[0], 4, 3) and not last.any()
        y.sum().backward()
        assert all(t.grad is None or not t.grad.any() for t in inputs.values())


@each_backend
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1, 1), (2, 2, 17, 3), (2, CHUNK - 1, 8, 16), (1, LONG, 5, 1), (2, 2 * CHUNK + 2, WIDE, 9)],
    ids=str,
)
@pytest.mark.parametrize("without", [(), OPTIONAL], ids=["all", "none"])
def test_unwritten_memory_never_shows(backend, poisoned_memory, shape, dtype, without):
    inputs = make_inputs(*shape, without=without, dtype=dtype)
    compare(inputs, backend, TOLERANCES[dtype])
    compare(inputs, backend, TOLERANCES[dtype], grad_last=None)
    y = selective_scan(**inputs, delta_softplus=True, backend=backend)
    with torch.no_grad():
        assert torch.equal(selective_scan(**inputs, delta_softplus=True, backend=backend), y)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning")
@each_and_the_specification
@pytest.mark.parametrize("softplus", [True, False], ids=["softplus", "plain"])
@pytest.mark.parametrize("step", [50.0, 300.0, 1e5, 1e15])
def test_large_steps(backend, step, softplus):
    """The state is forgotten at once; what comes in grows with the step, and nothing overflows."""
    inputs = make_inputs(
        1, CHUNK + 26, 18, 4, dtype=torch.float32, without=("delta_bias",), positive_steps=not softplus
    )
    with torch.no_grad():
        inputs["delta"][:, ::7] = step
        if softplus:
            inputs["delta"][:, 3::7] = -step
    result = run(inputs, backend, softplus=softplus, **grads_for(inputs))
    assert all(t.isfinite().all() for t in result.values())
    compare(inputs, backend, FLOAT32, softplus=softplus)


@each_backend
def test_no_decay_and_instant_decay(backend):
    """A = 0 keeps everything that came in; a huge A keeps nothing but the token of now."""
    inputs = make_inputs(1, 3 * CHUNK + 8, 5, 2, positive_steps=True)
    with torch.no_grad():
        inputs["A"][0], inputs["A"][1] = 0, -1e30
    compare(inputs, backend, FLOAT64)
    bare = inputs | {"D": None, "z": None, "delta_bias": None}
    y, last = selective_scan(**bare, return_last_state=True, backend=backend)
    x = (inputs["delta"] * inputs["u"])[0, :, :2, None] * inputs["B"][0, :, None]
    torch.testing.assert_close(last[0, 0], x[:, 0].sum(0))
    torch.testing.assert_close(y[0, :, 1], (x[:, 1] * inputs["C"][0]).sum(-1))


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@each_backend
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_infinite_decay(backend, dtype):
    """The limit: A = -inf keeps nothing but the token of now. The steps' gradient, 0 times infinity, is not defined."""
    inputs = make_inputs(2, CHUNK + 6, 5, 3, dtype=dtype)
    with torch.no_grad():
        inputs["A"][0], inputs["A"][1, 2] = -torch.inf, -torch.inf
    compare(inputs, backend, TOLERANCES[dtype], only=[name for name in NAMES if "delta" not in name])


def test_infinite_decay_in_portable_operators():
    """Without gradients, for exports."""
    inputs = {name: t.detach() for name, t in make_inputs(2, 70, 5, 3).items()}
    inputs["A"][0], inputs["A"][1, 2] = -torch.inf, -torch.inf
    found, expected = (
        scan(**inputs, delta_softplus=True) for scan in (selective_scan_portable, selective_scan_reference)
    )
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


@each_and_the_specification
def test_nan_in_gives_nan_out_from_there_on(backend):
    inputs = make_inputs(1, 140, 4, 4, dtype=torch.float32)
    with torch.no_grad():
        inputs["u"][0, 70, 2] = torch.nan
    y = selective_scan(**inputs, delta_softplus=True, backend=backend)
    assert y[0, 70:, 2].isnan().all()
    assert not y[0, :70].isnan().any() and not y[0, :, [0, 1, 3]].isnan().any()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("B", torch.zeros(2, 7, 3), r"`B` is \(2, 7, 3\); expected \(batch, length, d_state\) = \(2, 8, 3\)"),
        ("A", torch.zeros(5, 3), r"`A` is \(5, 3\); expected \(d_inner, d_state\) = \(4, 3\)"),
        ("A", torch.zeros(4), r"`A` is \(4,\); expected two axes"),
        ("u", torch.zeros(8, 4), r"`u` is \(8, 4\); expected three axes"),
        ("D", torch.zeros(1), r"`D` is \(1,\); expected \(d_inner\) = \(4,\)"),
        ("z", torch.zeros(2, 8, 4, dtype=torch.int64), r"`z` is torch.int64; expected a real floating-point"),
        ("delta", torch.zeros(2, 8, 4, device="meta"), r"`delta` is on meta, `u` on cpu"),
    ],
)
def test_bad_inputs_say_what_was_given_and_needed(name, value, message):
    inputs = make_inputs(2, 8, 4, 3, dtype=torch.float32)
    inputs[name] = value
    with pytest.raises(ValueError, match=message):
        selective_scan(**inputs)

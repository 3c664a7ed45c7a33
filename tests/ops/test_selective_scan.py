"""Every backend against the specification: outputs, last state, all gradients."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunetv2_lightm.ops import backend_table, selective_scan
from nnunetv2_lightm.ops._operator import scan_op
from nnunetv2_lightm.ops.backends import torch_chunked

from .cases import OPTIONAL, TOLERANCES, VECTORS, assert_close, grads_for, load_vector, make_inputs, run

BACKENDS = [status.name for status in backend_table(("cpu",)) if status.usable]
# Triton's interpreter takes ten seconds for one.
EXAMPLES = 5 if os.environ.get("TRITON_INTERPRET") == "1" else 20


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@pytest.mark.parametrize("vector", VECTORS)
def test_mamba_reference_vectors(data_root, vector, backend, dtype):
    inputs, options, expected = load_vector(data_root, vector, dtype)
    assert_close(run(inputs, backend, **options), expected, TOLERANCES[dtype])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 200, 1000])
def test_lengths(backend, length):
    inputs = make_inputs(2, length, 5, 3)
    assert_close(
        run(inputs, backend, **grads_for(inputs)),
        run(inputs, "reference", **grads_for(inputs)),
        TOLERANCES[torch.float64],
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("softplus", [True, False])
@pytest.mark.parametrize("without", [(), ("D",), ("z",), ("delta_bias",), OPTIONAL], ids=str)
def test_optional_inputs(backend, softplus, without):
    inputs = make_inputs(2, 70, 6, 4, without=without)
    if not softplus:
        inputs["delta"] = inputs["delta"].detach().abs().requires_grad_()
    expected = run(inputs, "reference", softplus=softplus, **grads_for(inputs))
    assert_close(run(inputs, backend, softplus=softplus, **grads_for(inputs)), expected, TOLERANCES[torch.float64])


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=EXAMPLES, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 140), st.integers(1, 33), st.integers(1, 32)),
    without=st.sets(st.sampled_from(OPTIONAL)),
    seed=st.integers(0, 2**16),
)
def test_random_shapes(backend, shape, without, seed):
    inputs = make_inputs(*shape, without=without, seed=seed, dtype=torch.float32)
    wide = {n: None if t is None else t.detach().double().requires_grad_() for n, t in inputs.items()}
    assert_close(
        run(inputs, backend, **grads_for(inputs)), run(wide, "reference", **grads_for(wide)), TOLERANCES[torch.float32]
    )


def test_several_groups_of_chunks(monkeypatch):
    """More than one group of chunks, the last one not full."""
    monkeypatch.setitem(torch_chunked.GROUP_ELEMENTS, "cpu", 2 * 8 * 4)
    inputs = make_inputs(1, 64 * 6 + 5, 8, 4)
    expected = run(inputs, "reference", **grads_for(inputs))
    assert_close(run(inputs, "torch_chunked", **grads_for(inputs)), expected, TOLERANCES[torch.float64])


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_non_contiguous_inputs(backend):
    inputs = make_inputs(2, 67, 6, 4)
    expected = run(inputs, "reference", **grads_for(inputs))
    strided = {}
    for name, tensor in inputs.items():
        padded = torch.full((*tensor.shape[:-1], 3 * tensor.shape[-1]), torch.nan, dtype=tensor.dtype)
        view = padded[..., ::3]
        view.copy_(tensor.detach())
        strided[name] = view.requires_grad_()
        assert not view.is_contiguous()
    assert_close(run(strided, backend, **grads_for(inputs)), expected, TOLERANCES[torch.float64])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_half_precision_computes_in_float32(backend, dtype):
    inputs = make_inputs(1, 130, 8, 16, dtype=dtype)
    wide = {n: t.detach().double().requires_grad_() for n, t in inputs.items()}
    y, last = selective_scan(**inputs, delta_softplus=True, return_last_state=True, backend=backend)
    assert y.dtype == dtype and last.dtype == torch.float32
    assert_close(run(inputs, backend), run(wide, "reference"), TOLERANCES[dtype])


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_autocast_does_not_reach_the_scan(backend, autocast):
    inputs = make_inputs(1, 100, 8, 16, dtype=torch.float32)
    expected = run(inputs, backend)
    with torch.autocast("cpu", dtype=autocast):
        result = run(inputs, backend)
    assert_close(result, expected, 1e-7)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_output_in_a_wider_dtype(backend):
    """What the scan has computed, not rounded to the dtype of its input."""
    inputs = make_inputs(1, 70, 4, 3, dtype=torch.float16)
    options = {"delta_softplus": True, "backend": backend}
    y, rounded = selective_scan(**inputs, **options, out_dtype=torch.float32), selective_scan(**inputs, **options)
    assert y.dtype == torch.float32 and (y.half() == rounded).all() and (y != rounded).any()
    y.sum().backward()
    assert all(t.grad.dtype == torch.float16 for t in inputs.values())


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_empty_sequence_and_batch(backend):
    for shape in ((2, 0, 4, 3), (0, 5, 4, 3)):
        inputs = make_inputs(*shape)
        y, last = selective_scan(**inputs, delta_softplus=True, return_last_state=True, backend=backend)
        assert y.shape == shape[:3] and last.shape == (shape[0], 4, 3) and not last.any()
        y.sum().backward()
        assert all(t.grad is None or not t.grad.any() for t in inputs.values())


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_large_steps_neither_overflow_nor_yield_nan(backend):
    inputs = make_inputs(1, 90, 4, 4, dtype=torch.float32)
    with torch.no_grad():
        inputs["delta"][:, ::7] = 300.0
        inputs["delta"][:, 1::7] = -300.0
    result = run(inputs, backend)
    assert all(torch.isfinite(t).all() for t in result.values())
    assert_close(result, run(inputs, "reference"), TOLERANCES[torch.float32])


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_nan_in_gives_nan_out_from_there_on(backend):
    inputs = make_inputs(1, 140, 4, 4, dtype=torch.float32)
    with torch.no_grad():
        inputs["u"][0, 70, 2] = torch.nan
    y = selective_scan(**inputs, delta_softplus=True, backend=backend)
    assert y[0, 70:, 2].isnan().all()
    assert not y[0, :70].isnan().any() and not y[0, :, [0, 1, 3]].isnan().any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_output_element_is_written(backend, monkeypatch):
    """Uninitialised memory must not show through: torch.empty and its kin hand out NaN."""
    poisoned = {name: getattr(torch, name) for name in ("empty", "empty_like")}
    for name, original in poisoned.items():
        monkeypatch.setattr(torch, name, lambda *a, _make=original, **k: _make(*a, **k).fill_(torch.nan))
    inputs = make_inputs(2, 100, 5, 3, dtype=torch.float32)
    result = run(inputs, backend, **grads_for(inputs))
    assert not any(t.isnan().any() for t in result.values())


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradcheck(backend):
    inputs = make_inputs(1, 66, 2, 2)
    names, tensors = zip(*inputs.items(), strict=True)

    def scan(*values):
        return selective_scan(
            **dict(zip(names, values, strict=True)), delta_softplus=True, return_last_state=True, backend=backend
        )

    assert torch.autograd.gradcheck(scan, tensors, fast_mode=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("without", [(), OPTIONAL], ids=str)
def test_opcheck(backend, without):
    inputs = make_inputs(2, 70, 4, 3, without=without, dtype=torch.float32)
    torch.library.opcheck(scan_op, (*inputs.values(), True, backend, True))
    torch.library.opcheck(scan_op, (*inputs.values(), True, backend, True, torch.bfloat16))


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiled_graph_has_no_break(backend):
    inputs = make_inputs(1, 70, 4, 3, dtype=torch.float32)

    def scan(values):
        return selective_scan(**values, delta_softplus=True, backend=backend).sum()

    compiled = torch.compile(scan, backend="aot_eager", fullgraph=True)
    compiled(inputs).backward()
    grads = {n: t.grad.clone() for n, t in inputs.items()}
    expected = run(inputs, backend)
    assert_close(
        {f"grad_{n}": g.double() for n, g in grads.items()}, {k: v for k, v in expected.items() if "grad" in k}, 1e-6
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_states_are_not_kept_for_backward(backend):
    """What autograd saves is O(length * d_inner): inputs and checkpoints, not length * d_inner * d_state."""
    batch, length, d_inner, d_state = 1, 1024, 32, 16
    inputs = make_inputs(batch, length, d_inner, d_state, dtype=torch.float32)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        selective_scan(**inputs, delta_softplus=True, backend=backend)
    given = sum(t.numel() for t in inputs.values())
    assert sum(saved) - given <= length * d_inner * d_state / 8


def test_no_checkpoints_without_gradients():
    inputs = {n: t.detach() for n, t in make_inputs(1, 70, 4, 3).items()}
    _, _, checkpoints = scan_op(*inputs.values(), True, BACKENDS[0], False)
    assert checkpoints.numel() == 0


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

"""The selective scan as a registered operator: derivatives, fake implementation, compiled and exported, memory."""

from __future__ import annotations

import pytest
import torch

from nnunetv2_lightm.ops import selective_scan
from nnunetv2_lightm.ops._scan_operator import scan_backward_op, scan_op
from nnunetv2_lightm.ops.backends import load_backend

from .cases import CHUNK, LONG, OPTIONAL, USABLE, make_inputs

pytestmark = [pytest.mark.parametrize("backend", USABLE), pytest.mark.usefixtures("short_triton_chunks")]


@pytest.mark.parametrize("softplus", [True, False], ids=["softplus", "plain"])
@pytest.mark.parametrize("without", [(), ("D",), ("z",), ("delta_bias",), OPTIONAL], ids=str)
def test_gradcheck(backend, without, softplus):
    inputs = make_inputs(2, 3, 2, 2, without=without, positive_steps=not softplus)
    check_gradients(inputs, backend, softplus)


def test_gradcheck_over_several_chunks(backend):
    check_gradients(make_inputs(1, CHUNK + 2, 2, 2), backend, True, fast_mode=True)


def check_gradients(inputs, backend, softplus, **options):
    inputs = {name: t for name, t in inputs.items() if t is not None}

    def scan(*values):
        given = dict(zip(inputs, values, strict=True))
        return selective_scan(**given, delta_softplus=softplus, return_last_state=True, backend=backend)

    assert torch.autograd.gradcheck(scan, tuple(inputs.values()), **options)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("without", [(), ("D", "delta_bias"), OPTIONAL], ids=str)
def test_opcheck(backend, without, dtype):
    inputs = make_inputs(2, CHUNK + 3, 3, 2, dtype=dtype) | dict.fromkeys(without)
    for out_dtype in (None, torch.bfloat16):
        torch.library.opcheck(scan_op, (*inputs.values(), False, backend, True, out_dtype))
    tensors = [None if t is None else t.detach() for t in inputs.values()]
    torch.library.opcheck(scan_op, (*tensors, True, backend, False))
    y, last, checkpoints = scan_op(*tensors, True, backend, True)
    for grad_last in (last, None):
        torch.library.opcheck(scan_backward_op, (y, grad_last, checkpoints, *tensors, True, backend))


class Scan(torch.nn.Module):
    def __init__(self, inputs, backend):
        super().__init__()
        self.backend, self.A, self.D = backend, inputs["A"], inputs["D"]

    def forward(self, u, delta, B, C, z):
        return selective_scan(u, delta, self.A, B, C, self.D, z, delta_softplus=True, backend=self.backend)


def test_export_for_any_length(backend):
    """One operator in the graph, and a length that stays free."""
    names = ("u", "delta", "B", "C", "z")
    inputs = {name: t.detach() for name, t in make_inputs(1, 70, 4, 3, dtype=torch.float32).items()}
    length = torch.export.Dim("length", min=2, max=4096)
    exported = torch.export.export(
        Scan(inputs, backend), tuple(inputs[n] for n in names), dynamic_shapes={n: {1: length} for n in names}
    )
    called = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    assert [name for name in called if "selective_scan" in name] == ["nnunetv2_lightm.selective_scan.default"]
    other = make_inputs(1, 131, 4, 3, dtype=torch.float32) | {"A": inputs["A"], "D": inputs["D"], "delta_bias": None}
    expected = selective_scan(**other, delta_softplus=True, backend="reference")
    torch.testing.assert_close(exported.module()(*(other[n] for n in names)), expected, rtol=1e-4, atol=1e-4)


def test_compiled_once_for_any_length(backend):
    """Without a graph break. Lengths change from patch to patch: what is compiled for the first one serves all."""

    def scan(values):
        return selective_scan(**values, delta_softplus=True, backend=backend)

    torch.compiler.reset()
    compiled = torch.compile(scan, backend="aot_eager", fullgraph=True, dynamic=True)
    for stance, length in (
        ("default", CHUNK + 6),
        ("fail_on_recompile", 2 * CHUNK + 3),
        ("fail_on_recompile", 9 * CHUNK),
    ):
        results = []
        for function in (compiled, scan):
            leaves = make_inputs(1, length, 4, 3, dtype=torch.float32)
            with torch.compiler.set_stance(stance):
                y = function(leaves)
            results.append([y, *torch.autograd.grad(y.square().sum(), list(leaves.values()))])
        torch.testing.assert_close(*results)


@pytest.mark.parametrize("length", [1, CHUNK - 1, CHUNK, CHUNK + 1, LONG])
def test_checkpoints_are_as_many_as_announced(backend, length):
    tensors = [t.detach() for t in make_inputs(2, length, 3, 2).values()]
    _, _, checkpoints = scan_op(*tensors, True, backend, True)
    assert checkpoints.shape == (2, load_backend(backend).checkpoint_count(length), 2, 3)
    _, _, checkpoints = scan_op(*tensors, True, backend, False)
    assert checkpoints.numel() == 0


def test_states_are_not_kept_for_backward(backend):
    """What autograd saves is O(length * d_inner): inputs and a state each chunk, not length * d_inner * d_state."""
    batch, length, d_inner, d_state = 1, 16 * CHUNK, 32, 16
    inputs = make_inputs(batch, length, d_inner, d_state, dtype=torch.float32)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        selective_scan(**inputs, delta_softplus=True, backend=backend)
    given = sum(t.numel() for t in inputs.values())
    assert sum(saved) - given <= 1.1 * length * d_inner * d_state / CHUNK

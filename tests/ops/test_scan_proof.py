"""The selective scan where kernels go wrong: every option, unwritten memory, extreme steps, gradients one by one."""

from __future__ import annotations

import itertools

import pytest
import torch

from nnunetv2_lightm.ops import backend_table, selective_scan
from nnunetv2_lightm.ops._operator import scan_backward_op, scan_op
from nnunetv2_lightm.ops.backends import load_backend

BACKENDS = [status.name for status in backend_table(("cpu",)) if status.usable and status.considered]
NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
OPTIONAL = ("D", "z", "delta_bias")
SUBSETS = [without for count in range(4) for without in itertools.combinations(OPTIONAL, count)]
# Largest error allowed, relative to the largest value of the tensor.
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}
pytestmark = pytest.mark.parametrize("backend", BACKENDS)


@pytest.fixture
def poisoned_memory():
    """Tensors that PyTorch leaves unwritten hold NaN."""
    filled = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.zeros(1).new_empty(9).isnan().all() and torch.empty(9).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = filled


def make_inputs(batch, length, d_inner, d_state, *, without=(), dtype=torch.float64):
    generator = torch.Generator().manual_seed(length * 100 + d_inner)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    tokens, matrix = (batch, length, d_inner), (batch, length, d_state)
    values = (normal(*tokens), normal(*tokens).abs(), -normal(d_inner, d_state).abs(), normal(*matrix), normal(*matrix))
    values += (normal(d_inner), normal(*tokens), normal(d_inner).abs())
    return {name: None if name in without else t.to(dtype) for name, t in zip(NAMES, values, strict=True)}


def run(inputs, backend, *, softplus=True, only=NAMES, with_last=True):
    """Output, last state and the gradients of the inputs named in `only`."""
    leaves = {name: None if t is None else t.detach().clone() for name, t in inputs.items()}
    wanted = [name for name in only if leaves[name] is not None]
    for name in wanted:
        leaves[name].requires_grad_()
    y, last = selective_scan(**leaves, delta_softplus=softplus, return_last_state=True, backend=backend)
    generator = torch.Generator().manual_seed(1)
    outputs = [y, last] if with_last else [y]
    grads = [torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t.dtype) for t in outputs]
    result = {"y": y.detach(), "last_state": last.detach()}
    return result | dict(zip(wanted, torch.autograd.grad(outputs, [leaves[n] for n in wanted], grads), strict=True))


def assert_close(result, expected, tolerance):
    assert result.keys() == expected.keys()
    for name, value in expected.items():
        error = float((result[name].double() - value.double()).abs().max() / value.abs().max().clamp_min(1e-30))
        assert error <= tolerance, f"{name}: relative error {error:.2e} above {tolerance:.0e}"


@pytest.mark.parametrize("softplus", [True, False], ids=["softplus", "plain"])
@pytest.mark.parametrize("without", SUBSETS, ids=str)
def test_every_choice_of_options(backend, without, softplus):
    inputs = make_inputs(2, 67, 19, 5, without=without)
    expected = run(inputs, "reference", softplus=softplus)
    for dtype, tolerance in TOLERANCES.items():
        given = {name: None if t is None else t.to(dtype) for name, t in inputs.items()}
        assert_close(run(given, backend, softplus=softplus), expected, tolerance)


@pytest.mark.parametrize("d_state", range(1, 33))
def test_every_number_of_states(backend, d_state):
    inputs = make_inputs(1, 9, 3, d_state)
    assert_close(run(inputs, backend), run(inputs, "reference"), TOLERANCES[torch.float64])


@pytest.mark.parametrize("only", NAMES)
def test_gradient_of_one_input_alone(backend, only):
    inputs = make_inputs(2, 70, 6, 3)
    expected = run(inputs, "reference", only=[only], with_last=False)
    assert_close(run(inputs, backend, only=[only], with_last=False), expected, TOLERANCES[torch.float64])


@pytest.mark.parametrize("output", ["y", "last_state"])
def test_gradient_through_one_output_alone(backend, output):
    results = []
    for name in (backend, "reference"):
        inputs = {n: t.requires_grad_() for n, t in make_inputs(2, 70, 6, 3).items()}
        y, last = selective_scan(**inputs, delta_softplus=True, return_last_state=True, backend=name)
        (y if output == "y" else last).square().sum().backward()
        results.append({n: torch.zeros_like(t) if t.grad is None else t.grad for n, t in inputs.items()})
    assert_close(*results, TOLERANCES[torch.float64])


@pytest.mark.parametrize("dtype", TOLERANCES, ids=["float64", "float32"])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (2, 2, 17, 3), (2, 63, 8, 16), (1, 1000, 5, 1), (3, 130, 33, 7)], ids=str
)
@pytest.mark.parametrize("without", [(), OPTIONAL], ids=["all", "none"])
def test_unwritten_memory_never_shows(backend, poisoned_memory, shape, dtype, without):
    inputs = make_inputs(*shape, without=without, dtype=dtype)
    for with_last in (True, False):
        result = run(inputs, backend, with_last=with_last)
        assert not any(t.isnan().any() for t in result.values())
        assert_close(result, run(inputs, "reference", with_last=with_last), TOLERANCES[dtype])
    with torch.no_grad():
        y = selective_scan(**inputs, delta_softplus=True, backend=backend)
    assert torch.equal(y, result["y"])


@pytest.mark.parametrize("softplus", [True, False], ids=["softplus", "plain"])
@pytest.mark.parametrize("step", [50.0, 1e3, 1e6, 1e15])
def test_large_steps(backend, step, softplus):
    """The state is forgotten at once; what comes in grows with the step, and nothing overflows."""
    inputs = make_inputs(1, 90, 18, 4, dtype=torch.float32)
    inputs["delta"][:, ::7] = step
    inputs["delta_bias"] = None
    if softplus:
        inputs["delta"][:, 3::7] = -step
    result = run(inputs, backend, softplus=softplus)
    assert all(t.isfinite().all() for t in result.values())
    wide = {name: None if t is None else t.double() for name, t in inputs.items()}
    assert_close(result, run(wide, "reference", softplus=softplus), TOLERANCES[torch.float32])


def test_no_decay_and_instant_decay(backend):
    """A = 0 keeps everything that came in; a huge A keeps nothing but the token of now."""
    inputs = make_inputs(1, 200, 5, 2)
    inputs["A"][0], inputs["A"][1] = 0, -1e30
    assert_close(run(inputs, backend), run(inputs, "reference"), TOLERANCES[torch.float64])
    bare = inputs | {"D": None, "z": None, "delta_bias": None}
    y, last = selective_scan(**bare, return_last_state=True, backend=backend)
    x = (inputs["delta"] * inputs["u"])[0, :, :2, None] * inputs["B"][0, :, None]
    torch.testing.assert_close(last[0, 0], x[:, 0].sum(0))
    torch.testing.assert_close(y[0, :, 1], (x[:, 1] * inputs["C"][0]).sum(-1))


@pytest.mark.parametrize("softplus", [True, False], ids=["softplus", "plain"])
@pytest.mark.parametrize("without", [(), ("D",), ("z",), ("delta_bias",), OPTIONAL], ids=str)
def test_gradcheck(backend, without, softplus):
    inputs = {name: t for name, t in make_inputs(2, 3, 2, 2, without=without).items() if t is not None}
    tensors = [t.requires_grad_() for t in inputs.values()]

    def scan(*values):
        given = dict(zip(inputs, values, strict=True))
        return selective_scan(**given, delta_softplus=softplus, return_last_state=True, backend=backend)

    assert torch.autograd.gradcheck(scan, tensors)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("without", [(), ("D", "delta_bias"), OPTIONAL], ids=str)
def test_opcheck(backend, without, dtype):
    inputs = {n: t if t is None else t.requires_grad_() for n, t in make_inputs(2, 67, 3, 2, dtype=dtype).items()}
    inputs |= dict.fromkeys(without)
    torch.library.opcheck(scan_op, (*inputs.values(), False, backend, True))
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
    inputs = make_inputs(1, 70, 4, 3, dtype=torch.float32)
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
    """Lengths change from patch to patch: what is compiled for the first one serves all."""

    def scan(values):
        return selective_scan(**values, delta_softplus=True, backend=backend)

    torch.compiler.reset()
    compiled = torch.compile(scan, backend="aot_eager", fullgraph=True, dynamic=True)
    for stance, length in (("default", 70), ("fail_on_recompile", 131), ("fail_on_recompile", 1000)):
        inputs = make_inputs(1, length, 4, 3, dtype=torch.float32)
        results = []
        for function in (compiled, scan):
            leaves = {name: t.clone().requires_grad_() for name, t in inputs.items()}
            with torch.compiler.set_stance(stance):
                y = function(leaves)
            results.append([y, *torch.autograd.grad(y.square().sum(), list(leaves.values()))])
        torch.testing.assert_close(*results)


@pytest.mark.parametrize("length", [1, 63, 64, 65, 1000])
def test_checkpoints_are_as_many_as_announced(backend, length):
    tensors = make_inputs(2, length, 3, 2).values()
    _, _, checkpoints = scan_op(*tensors, True, backend, True)
    assert checkpoints.shape == (2, load_backend(backend).checkpoint_count(length), 2, 3)

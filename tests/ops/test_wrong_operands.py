"""Random wrong calls of every compiled operator: each is refused in words, or gives what the specification gives.

``NNUNETV2_LIGHTM_FUZZ`` is the number of calls of each operator: `make sanitize` makes 10,000 under AddressSanitizer.
A call is repeated alone by its number: ``FIRST``, and 1 for the number.
"""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch

from nnunetv2_lightm.ops import depthwise_op, rvm_layer_op
from nnunetv2_lightm.ops._operands import bytes_needed
from nnunetv2_lightm.ops._operator import NAMES, scan_backward_op, scan_op
from nnunetv2_lightm.ops.backends import cpu_native
from nnunetv2_lightm.ops.depthwise import HEAD, PLAIN, STEM, depthwise_backward_op
from nnunetv2_lightm.ops.reference import (
    compute_dtype,
    depthwise_conv_reference,
    depthwise_head_reference,
    depthwise_stem_reference,
    rvm_layer_reference,
    selective_scan_reference,
)
from nnunetv2_lightm.ops.rvm_layer import PARAMETERS, rvm_layer_backward_op

REASON = cpu_native.not_supported_reason("cpu")
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"cpu_native: {REASON}")

CALLS = int(os.environ.get("NNUNETV2_LIGHTM_FUZZ", "150"))
FIRST = 0
# What says something to a user; an IndexError or a ZeroDivisionError does not.
REFUSALS = (ValueError, RuntimeError, TypeError, NotImplementedError)
DTYPES = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64)
TOLERANCES = {torch.float64: 1e-8, torch.float32: 2e-4, torch.bfloat16: 3e-2, torch.float16: 6e-3}


@dataclass
class Call:
    """A call of an operator: operands by name, and options.

    Attributes:
        kept: Operands that the forward pass has left for the backward pass.
        consistent: Whether these still belong to the others, so that the result is defined.
        grad: Whether gradients are recorded.
    """

    tensors: dict[str, Any]
    options: dict[str, Any]
    kept: tuple[str, ...] = ()
    consistent: bool = True
    grad: bool = False
    changes: list[str] = field(default_factory=list)

    def values(self, *names: str) -> list[Any]:
        return [self.tensors.get(name) for name in names]


# The operators. Each has a maker of right calls, the call, and what the specification says of it.


def make_scan(rng: random.Random) -> Call:
    batch, length, d_inner = rng.randint(0, 2), rng.choice((1, 2, 3, 5, 7, 66)), rng.randint(1, 20)
    d_state = rng.choice((1, 2, 3, 5, 16))
    tokens, matrix = (batch, length, d_inner), (batch, length, d_state)
    shapes = (tokens, tokens, (d_inner, d_state), matrix, matrix, (d_inner,), tokens, (d_inner,))
    tensors = {name: torch.randn(shape) for name, shape in zip(NAMES, shapes, strict=True)}
    tensors["A"] = -tensors["A"].abs()
    for name in ("D", "z", "delta_bias"):
        if rng.random() < 0.3:
            tensors[name] = None
    options = {"delta_softplus": True, "backend": "cpu_native", "keep": rng.random() < 0.5, "out_dtype": None}
    return Call(tensors, options)


def run_scan(call: Call) -> list[torch.Tensor]:
    return list(scan_op(*call.values(*NAMES), *call.options.values())[:2])


def expect_scan(call: Call) -> list[torch.Tensor]:
    o = call.options
    return list(selective_scan_reference(*call.values(*NAMES), o["delta_softplus"], o["out_dtype"]))


def make_scan_backward(rng: random.Random) -> Call:
    call = make_scan(rng)
    options = call.options | {"keep": True}
    y, last, checkpoints = scan_op(*call.values(*NAMES), *options.values())
    rest = {"grad_y": torch.randn(y.shape), "grad_last": torch.randn(last.shape), "checkpoints": checkpoints}
    if rng.random() < 0.3:
        rest["grad_last"] = None
    options = {"delta_softplus": True, "backend": "cpu_native"}
    return Call(call.tensors | rest, options, kept=("checkpoints",))


def run_scan_backward(call: Call) -> list[torch.Tensor]:
    grads = scan_backward_op(*call.values("grad_y", "grad_last", "checkpoints", *NAMES), *call.options.values())
    return [g for g, name in zip(grads, NAMES, strict=True) if call.tensors[name] is not None]


def expect_scan_backward(call: Call) -> list[torch.Tensor]:
    given = [t for t in call.values(*NAMES) if t is not None]
    grads_out = call.values("grad_y", "grad_last")

    def scan(*leaves: torch.Tensor) -> list[torch.Tensor]:
        rest = iter(leaves)
        inputs = [None if t is None else next(rest) for t in call.values(*NAMES)]
        return list(selective_scan_reference(*inputs, call.options["delta_softplus"]))

    return gradients(scan, given, grads_out)


def make_layer(rng: random.Random) -> Call:
    dims = rng.choice((2, 3))
    spatial = [rng.randint(1, 5) for _ in range(dims)]
    channels, inner, out = (rng.choice((16, 32)) for _ in range(3))
    states, rank = rng.randint(1, 4), rng.randint(1, 3)
    shapes = {
        **dict.fromkeys(("norm_in_weight", "norm_in_bias", "scale", "norm_out_weight", "norm_out_bias"), (channels,)),
        **dict.fromkeys(("conv_bias", "dt_bias", "D", "norm_weight", "norm_bias"), (inner,)),
        **dict.fromkeys(("in_proj", "gate_proj"), (inner, channels)),
        "conv_weight": (inner, 1, *(3,) * dims),
        "x_proj": (rank + 2 * states, inner),
        "dt_weight": (inner, rank),
        "A": (inner, states),
        "out_proj": (channels, inner),
        "projection_weight": (out, channels),
        "projection_bias": (out,),
    }
    tensors = {"x": torch.randn(rng.randint(0, 2), *spatial, channels)}
    tensors |= {name: 0.3 * torch.randn(shapes[name]) for name in PARAMETERS}
    tensors["A"] = -tensors["A"].abs()
    return Call(tensors, {"pool": [rng.randint(1, 2) for _ in range(dims)], "keep": rng.random() < 0.5})


def _parameters(call: Call, names: tuple[str, ...] = PARAMETERS) -> list[Any]:
    """The list of parameters, of which an option may take the last one or add one."""
    given = [call.tensors[name] for name in names if name in call.tensors]
    extra = call.options.get("parameters", 0)
    return given[:-1] if extra < 0 else given + given[:extra]


def run_layer(call: Call) -> list[torch.Tensor]:
    return [rvm_layer_op(call.tensors["x"], _parameters(call), call.options["pool"], call.options["keep"])[0]]


def expect_layer(call: Call) -> list[torch.Tensor]:
    return [rvm_layer_reference(call.tensors["x"], {n: call.tensors[n] for n in PARAMETERS}, call.options["pool"])]


def make_layer_backward(rng: random.Random) -> Call:
    call = make_layer(rng)
    out, checkpoints, argmax = rvm_layer_op(call.tensors["x"], _parameters(call), call.options["pool"], True)
    rest = {"grad_out": torch.randn(out.shape), "checkpoints": checkpoints, "argmax": argmax}
    return Call(call.tensors | rest, {"pool": call.options["pool"]}, kept=("checkpoints", "argmax"))


def run_layer_backward(call: Call) -> list[torch.Tensor]:
    given = (*call.values("grad_out", "checkpoints", "argmax", "x"), _parameters(call), call.options["pool"])
    grad_x, grads = rvm_layer_backward_op(*given)
    return [grad_x, *grads]


def expect_layer_backward(call: Call) -> list[torch.Tensor]:
    def layer(x: torch.Tensor, *parameters: torch.Tensor) -> list[torch.Tensor]:
        return [rvm_layer_reference(x, dict(zip(PARAMETERS, parameters, strict=True)), call.options["pool"])]

    return gradients(layer, call.values("x", *PARAMETERS), call.values("grad_out"))


CONVOLUTION = ("weight", "bias", "point_weight", "point_bias")


def make_convolution(rng: random.Random, surroundings: int) -> Call:
    dims, channels, points = rng.choice((2, 3)), rng.choice((16, 32)), rng.randint(1, 3)
    spatial, batch = [rng.randint(1, 5) for _ in range(dims)], rng.randint(0, 2)
    tensors = {"x": torch.randn(batch, *spatial, channels) if surroundings != STEM else None}
    if surroundings == STEM:
        tensors["x"] = torch.randn(batch, points, *spatial)
    tensors |= {"weight": torch.randn(channels, 1, *(3,) * dims), "bias": torch.randn(channels)}
    if surroundings == STEM:
        tensors |= {"point_weight": torch.randn(channels, points), "point_bias": torch.randn(channels)}
    if surroundings == HEAD:
        tensors |= {"point_weight": torch.randn(points, channels), "point_bias": torch.randn(points)}
        spatial = [max(1, size + rng.randint(-2, 4)) for size in spatial]
    return Call(tensors, {"surroundings": surroundings, "size": spatial})


def run_convolution(call: Call) -> list[torch.Tensor]:
    o = call.options
    return [depthwise_op(o["surroundings"], call.tensors["x"], o["size"], _parameters(call, CONVOLUTION))]


def _convolution(call: Call, x: torch.Tensor, *parameters: torch.Tensor) -> list[torch.Tensor]:
    references = {PLAIN: depthwise_conv_reference, STEM: depthwise_stem_reference, HEAD: depthwise_head_reference}
    size = [call.options["size"]] if call.options["surroundings"] == HEAD else []
    return [references[call.options["surroundings"]](x, *size, *parameters)]


def expect_convolution(call: Call) -> list[torch.Tensor]:
    return _convolution(call, call.tensors["x"], *_parameters(call, CONVOLUTION))


def make_convolution_backward(rng: random.Random, surroundings: int) -> Call:
    call = make_convolution(rng, surroundings)
    (out,) = run_convolution(call)
    return Call(call.tensors | {"grad_out": torch.randn(out.shape)}, call.options)


def run_convolution_backward(call: Call) -> list[torch.Tensor]:
    o = call.options
    given = (o["surroundings"], *call.values("grad_out", "x"), o["size"], _parameters(call, CONVOLUTION))
    grad_x, grads = depthwise_backward_op(*given)
    return [*grads] if o["surroundings"] == STEM else [grad_x, *grads]


def expect_convolution_backward(call: Call) -> list[torch.Tensor]:
    inputs = [call.tensors["x"], *_parameters(call, CONVOLUTION)]
    grads = gradients(partial(_convolution, call), inputs, call.values("grad_out"))
    return grads[1:] if call.options["surroundings"] == STEM else grads


def gradients(function: Callable, inputs: list[torch.Tensor], grads_out: list[torch.Tensor | None]) -> list[Any]:
    """Of the specification, computed in the compute dtype as the operators do."""
    dtype = compute_dtype(*inputs)
    with torch.enable_grad():
        leaves = [t.detach().to(dtype).requires_grad_() for t in inputs]
        outputs = [(y, g.to(y.dtype)) for y, g in zip(function(*leaves), grads_out, strict=True) if g is not None]
        grads = torch.autograd.grad(
            [y for y, _ in outputs], leaves, [g for _, g in outputs], allow_unused=True, materialize_grads=True
        )
    return [g.to(t.dtype) for g, t in zip(grads, inputs, strict=True)]


OPERATORS = {
    "selective_scan": (make_scan, run_scan, expect_scan),
    "selective_scan_backward": (make_scan_backward, run_scan_backward, expect_scan_backward),
    "rvm_layer": (make_layer, run_layer, expect_layer),
    "rvm_layer_backward": (make_layer_backward, run_layer_backward, expect_layer_backward),
}
for _name, _kind in (("conv", PLAIN), ("stem", STEM), ("head", HEAD)):
    OPERATORS[f"depthwise_{_name}"] = (
        partial(make_convolution, surroundings=_kind),
        run_convolution,
        expect_convolution,
    )
    OPERATORS[f"depthwise_{_name}_backward"] = (
        partial(make_convolution_backward, surroundings=_kind),
        run_convolution_backward,
        expect_convolution_backward,
    )


# What goes wrong with an operand. SAME keep its values, so that the result is defined.


def _resized(t: torch.Tensor, rng: random.Random) -> torch.Tensor:
    shape = list(t.shape)
    axis = rng.randrange(len(shape))
    shape[axis] = max(0, rng.choice((0, 1, shape[axis] - 1, shape[axis] + 1, 2 * shape[axis], 16, 48)))
    return torch.randn(shape).to(t.dtype)


def _shrunk(t: torch.Tensor, rng: random.Random) -> torch.Tensor:
    t = t.detach().clone()
    t.untyped_storage().resize_(rng.choice((0, t.untyped_storage().nbytes() // 2, 1)))
    return t


def _slice(t: torch.Tensor, rng: random.Random) -> torch.Tensor:
    wide = torch.full([size + 2 for size in t.shape], torch.nan).to(t.dtype)
    view = wide[tuple(slice(1, size + 1) for size in t.shape)]
    return view.copy_(t.detach())


def _negated_view(t: torch.Tensor, rng: random.Random) -> torch.Tensor:
    return torch.complex(t.detach(), -t.detach()).conj().imag if t.dtype == torch.float32 else t


SAME: dict[str, Callable] = {
    "slice": _slice,
    "strided": lambda t, rng: torch.stack((t, t), -1)[..., 0],
    "backwards in memory": lambda t, rng: (
        t.permute(*reversed(range(t.ndim))).contiguous().permute(*reversed(range(t.ndim)))
    ),
    "flipped twice": lambda t, rng: t.flip(0).flip(0),
    "requires grad": lambda t, rng: t.detach().clone().requires_grad_(),
    "parameter": lambda t, rng: torch.nn.Parameter(t, requires_grad=False),
    "negated view": _negated_view,
}
OTHER: dict[str, Callable] = {
    "resized": _resized,
    "without an axis": lambda t, rng: t.select(rng.randrange(t.ndim), 0),
    "with an axis": lambda t, rng: t.unsqueeze(rng.randint(0, t.ndim)),
    "transposed": lambda t, rng: t.transpose(rng.randrange(t.ndim), rng.randrange(t.ndim)),
    "flattened": lambda t, rng: t.reshape(-1),
    "empty": lambda t, rng: t.new_empty(0),
    "emptied": lambda t, rng: t.narrow(rng.randrange(t.ndim), 0, 0),
    "scalar": lambda t, rng: t.new_ones(()),
    "dtype": lambda t, rng: t.to(rng.choice(DTYPES)),
    "float8": lambda t, rng: t.to(torch.float8_e4m3fn),
    "meta": lambda t, rng: t.to("meta"),
    "expanded": lambda t, rng: t.select(0, 0).unsqueeze(0).expand_as(t),
    "all one element": lambda t, rng: t.as_strided(t.shape, [0] * t.ndim),
    "overlapping": lambda t, rng: t.as_strided(t.shape, [1] * t.ndim),
    "flipped": lambda t, rng: t.flip(rng.randrange(t.ndim)),
    "storage freed": _shrunk,
    "None": lambda t, rng: None,
    "number": lambda t, rng: 1.5,
    "list": lambda t, rng: t.tolist(),
    "numpy": lambda t, rng: t.detach().numpy(),
    "sparse": lambda t, rng: t.to_sparse(),
    "sparse csr": lambda t, rng: t.reshape(t.shape[0], -1).to_sparse_csr(),
    "mkldnn": lambda t, rng: t.to_mkldnn(),
    "quantized": lambda t, rng: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
    "nested": lambda t, rng: torch.nested.nested_tensor(list(t)),
    "zero tensor": lambda t, rng: torch._efficientzerotensor(t.shape),
    "huge values": lambda t, rng: t * 1e30,
}
OPTIONS: dict[str, tuple] = {
    "pool": ([], [1], [2, 2], [1, 1, 1], [0, 1], [0, 1, 1], [-1, 1, 1], [9, 9, 9], [300, 300], [7, 2, 3], [2**40] * 3),
    "size": ([], [1], [2, 2], [3, 1, 4], [0, 1], [0, 1, 1], [-1, 1, 1], [-2, 3], [1, 1, 1, 1], [2**62] * 3),
    "surroundings": (-1, 0, 1, 2, 3, 2**40),
    "backend": ("cpu_native", "nothing", "", "reference", "triton_gpu", "mamba_ssm_cuda"),
    "out_dtype": (torch.float64, torch.bfloat16, torch.int64, torch.complex64, torch.bool),
    "keep": (True, False),
    "parameters": (-1, 1, 3),
    "delta_softplus": (True, False, None),
}


def spoil(call: Call, rng: random.Random) -> None:
    """Change one to three things about a call."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        options = [o for o in OPTIONS if o in call.options or o == "parameters"]
        if rng.random() < 0.15:
            name = rng.choice(options)
            call.options[name] = rng.choice(OPTIONS[name])
            call.changes.append(f"{name}={call.options[name]}")
            continue
        given = [name for name, t in call.tensors.items() if isinstance(t, torch.Tensor)]
        if not given:
            return
        name = rng.choice(given)
        if rng.random() < 0.1:
            other = rng.choice(given)
            call.changes.append(f"{name} <-> {other}")
            call.tensors[name], call.tensors[other] = call.tensors[other], call.tensors[name]
            call.consistent = False
            continue
        changes = rng.choice((SAME, OTHER, OTHER))
        change = rng.choice(list(changes))
        try:
            changed = changes[change](call.tensors[name], rng)
        except (RuntimeError, IndexError, ValueError, TypeError, NotImplementedError):
            continue  # PyTorch itself makes no such tensor of this one
        call.changes.append(f"{name}: {change}")
        call.tensors[name] = changed
        if changes is OTHER and not name.startswith("grad"):
            call.consistent = False
    call.grad = rng.random() < 0.5
    in_list = [t for name, t in call.tensors.items() if name in PARAMETERS or name in CONVOLUTION]
    wrong_types = any(t is not None and not isinstance(t, torch.Tensor) for t in call.tensors.values())
    wrong_types = wrong_types or any(t is None for t in in_list)
    if "storage freed" in " ".join(call.changes) and wrong_types:
        call.changes.clear()  # to say that a type is wrong, PyTorch prints all operands, and reads freed memory itself


def assert_as_specified(got: list[torch.Tensor], expected: list[torch.Tensor], coarsest: float) -> None:
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype, (one.shape, other.shape, one.dtype, other.dtype)
        tolerance = max(coarsest, TOLERANCES.get(one.dtype, 0.15))
        one, other = (t.detach().double() for t in (one, other))
        finite = other.isfinite()
        if not bool(finite.all()):
            continue  # where the specification overflows, sums in another order may overflow elsewhere
        scale = float(other.abs().max()) if other.numel() else 0.0
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * scale + 1e-30)


def check(operator: str, number: int) -> str:
    """One wrong call; returns what became of it."""
    make, run, expect = OPERATORS[operator]
    rng = random.Random(f"{operator} {number}")
    torch.manual_seed(number)
    call = make(rng)
    spoil(call, rng)
    if not call.changes:
        return "unchanged"
    with torch.set_grad_enabled(call.grad):
        try:
            got = run(call)
        except REFUSALS as error:
            assert str(error).strip() and "INTERNAL ASSERT" not in str(error), repr(error)
            return "refused"
    tensors = [t for t in call.tensors.values() if isinstance(t, torch.Tensor)]
    assert all(t.layout == torch.strided and not t.is_quantized for t in tensors), "accepted what is not dense"
    if any(t.is_meta for t in tensors):
        assert all(t.is_meta for t in tensors if t.numel()), "accepted two devices"
        return "meta"
    for t in tensors:
        assert t.untyped_storage().nbytes() >= bytes_needed(t), "accepted freed memory"
    if call.kept and not call.consistent:
        return "inconsistent"
    with torch.no_grad():
        expected = expect(call)
    coarsest = 0.0 if operator.endswith("backward") else TOLERANCES[compute_dtype(*tensors)]
    assert_as_specified(got, expected, coarsest)
    return "as specified"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("operator", OPERATORS)
def test_wrong_calls(operator):
    outcomes: dict[str, int] = {}
    for number in range(FIRST, FIRST + CALLS):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                outcome = check(operator, number)
        except Exception as error:
            call = OPERATORS[operator][0](rng := random.Random(f"{operator} {number}"))
            spoil(call, rng)
            raise AssertionError(f"call {number} of {operator}, {call.changes}: {error!r}") from error
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    print(f"{operator}: {outcomes}")
    if CALLS >= 100:
        assert outcomes["refused"] > CALLS / 4 and outcomes["as specified"] > CALLS / 50, outcomes

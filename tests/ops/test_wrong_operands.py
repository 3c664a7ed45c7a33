"""Random wrong calls of every compiled operator: each is refused in words, or gives what the specification gives.

``NNUNETV2_LIGHTM_FUZZ`` is the number of calls of each operator: `make sanitize` makes 10,000 under AddressSanitizer.
The run ends with what became of them, a line for each operator. A call is repeated alone by its number: ``FIRST``, and
1 for the number.
"""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Callable

import pytest
import torch

from nnunetv2_lightm.ops._operands import bytes_needed
from nnunetv2_lightm.ops.backends import cpu_native
from nnunetv2_lightm.ops.reference import compute_dtype

from ..conftest import FUZZ
from .cases import CALL_TOLERANCES
from .operator_calls import OPERATORS, Call

REASON = cpu_native.not_supported_reason("cpu")
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"cpu_native: {REASON}")

CALLS = int(os.environ.get("NNUNETV2_LIGHTM_FUZZ", "150"))
FIRST = 0
# Outcomes of a call.
REFUSED, RIGHT = "refused", "accepted and as specified"
SPACE = "nnunetv2_lightm::"
# What says something to a user; an IndexError or a ZeroDivisionError does not.
REFUSALS = (ValueError, RuntimeError, TypeError, NotImplementedError)
DTYPES = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64)


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
    "large values": lambda t, rng: t * 1e4,
}
# What is not changed again: PyTorch itself reads freed memory, and dies of a nested tensor that is narrowed.
FINAL = {"storage freed", "sparse", "sparse csr", "mkldnn", "quantized", "nested", "zero tensor"}
OPTIONS: dict[str, tuple] = {
    "pool": ([], [1], [2, 2], [1, 1, 1], [0, 1], [0, 1, 1], [-1, 1, 1], [9, 9, 9], [300, 300], [7, 2, 3], [2**40] * 3),
    "size": ([], [1], [2, 2], [3, 1, 4], [0, 1], [0, 1, 1], [-1, 1, 1], [-2, 3], [1, 1, 1, 1], [2**62] * 3),
    "surroundings": (-1, 0, 1, 2, 3, 2**40),
    **dict.fromkeys(
        ("backend", "scan"), ("cpu_native", "nothing", "", "reference", "torch_chunked", "triton_gpu", "mamba_ssm_cuda")
    ),
    "out_dtype": (torch.float64, torch.bfloat16, torch.int64, torch.complex64, torch.bool),
    "keep": (True, False),
    "parameters": (-1, 1, 3),
    "delta_softplus": (True, False, None),
}


def spoil(call: Call, rng: random.Random) -> None:
    """Change one to three things about a call."""
    left_alone = set()
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        options = [o for o in OPTIONS if o in call.options or o == "parameters"]
        if rng.random() < 0.15:
            name = rng.choice(options)
            call.options[name] = rng.choice(OPTIONS[name])
            call.changes.append(f"{name}={call.options[name]}")
            call.consistent &= name not in ("delta_softplus", "backend", "scan")
            continue
        given = [name for name, t in call.tensors.items() if isinstance(t, torch.Tensor) and name not in left_alone]
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
        if change in FINAL:
            left_alone.add(name)
        if changes is OTHER and not name.startswith("grad"):
            call.consistent = False
    call.grad = rng.random() < 0.5


def assert_as_specified(got: list[torch.Tensor], expected: list[torch.Tensor], coarsest: float) -> None:
    assert len(got) == len(expected)
    # A gradient's sum may cancel to a fraction of what it adds up, and of the other gradients.
    largest = max(
        (float(t.detach().double().abs().nan_to_num(0, 0, 0).max()) for t in expected if t.numel()), default=0.0
    )
    for one, other in zip(got, expected, strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype, (one.shape, other.shape, one.dtype, other.dtype)
        tolerance = max(coarsest, CALL_TOLERANCES.get(one.dtype, 0.15))
        one, other = (t.detach().double() for t in (one, other))
        finite = other.isfinite()
        if not bool(finite.all()):
            continue  # where the specification overflows, sums in another order may overflow elsewhere
        scale = max(float(other.abs().max()), 0.01 * largest) if other.numel() else 0.0
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * scale + 1e-30)


def wrong_call(operator: str, number: int) -> Call:
    rng = random.Random(f"{operator} {number}")
    # torch.manual_seed would queue a seed, with its traceback, for every kind of device that is not there.
    torch.default_generator.manual_seed(number)
    call = OPERATORS[operator][0](rng)
    spoil(call, rng)
    return call


@pytest.fixture
def tensors_are_not_printed(monkeypatch):
    """To say that an argument is of a wrong type, PyTorch prints all the others: most of the time of such a call, and
    a read of freed memory of its own."""
    monkeypatch.setattr(torch._tensor_str, "_str", lambda tensor, **options: "tensor(...)")


def test_every_operator_is_called():
    registered = {n.split("::")[1].split(".")[0] for n in torch._C._dispatch_get_all_op_names() if n.startswith(SPACE)}
    kinds = {"depthwise": "depthwise_conv", "depthwise_backward": "depthwise_conv_backward"}
    assert registered and {kinds.get(name, name) for name in registered} <= OPERATORS.keys()


def check(operator: str, number: int) -> str:
    """One wrong call; returns what became of it."""
    _, run, expect = OPERATORS[operator]
    call = wrong_call(operator, number)
    if not call.changes:
        return "left as they were"
    with torch.set_grad_enabled(call.grad):
        try:
            got = run(call)
        except REFUSALS as error:
            assert str(error).strip() and "INTERNAL ASSERT" not in str(error), repr(error)
            return REFUSED
    tensors = [t for t in call.tensors.values() if isinstance(t, torch.Tensor)]
    assert all(t.layout == torch.strided and not t.is_quantized for t in tensors), "accepted what is not dense"
    if any(t.is_meta for t in tensors):
        assert all(t.is_meta for t in tensors if t.numel()), "accepted two devices"
        return "accepted as shapes alone"
    for t in tensors:
        assert t.untyped_storage().nbytes() >= bytes_needed(t), "accepted freed memory"
    if call.kept and not call.consistent:
        return "accepted, without a defined result"
    with torch.no_grad():
        expected = expect(call)
    coarsest = 0.0 if operator.endswith("backward") else CALL_TOLERANCES[compute_dtype(*tensors)]
    assert_as_specified(got, expected, coarsest)
    return RIGHT


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("operator", OPERATORS)
def test_wrong_calls(operator, tensors_are_not_printed, record_property):
    outcomes: dict[str, int] = {}
    record_property(FUZZ, (operator, outcomes))
    for number in range(FIRST, FIRST + CALLS):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                outcome = check(operator, number)
        except Exception as error:
            outcomes["wrong"] = 1
            changes = wrong_call(operator, number).changes
            raise AssertionError(f"call {number} of {operator}, {changes}: {error!r}") from error
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    if CALLS >= 100:
        assert outcomes[REFUSED] > CALLS / 4 and outcomes[RIGHT] > CALLS / 50, outcomes

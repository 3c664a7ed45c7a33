"""Derivatives and transforms beyond the operators' own: as the specification has them, or an error; never zeros."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad

from nnunetv2_lightm.ops import (
    depthwise_conv,
    depthwise_head,
    depthwise_op,
    depthwise_stem,
    rvm_layer,
    rvm_layer_op,
    selective_scan,
)
from nnunetv2_lightm.ops._scan_operator import scan_backward_op, scan_op
from nnunetv2_lightm.ops.backends import cpu_native
from nnunetv2_lightm.ops.depthwise import depthwise_backward_op
from nnunetv2_lightm.ops.rvm_layer import PARAMETERS, rvm_layer_backward_op

from .cases import make_inputs

REASON = cpu_native.not_supported_reason("cpu")
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"cpu_native: {REASON}")


def scan_case(backend):
    names, values = zip(*make_inputs(1, 5, 2, 2).items(), strict=True)

    def scan(*values):
        return selective_scan(**dict(zip(names, values, strict=True)), delta_softplus=True, backend=backend)

    return scan, [v.detach() for v in values]


def layer_case():
    channels, inner, states, rank = 16, 16, 2, 1
    vectors = dict.fromkeys(("norm_in_weight", "norm_in_bias", "scale", "norm_out_weight"), (channels,))
    shapes = vectors | {
        **dict.fromkeys(("norm_out_bias", "projection_bias"), (channels,)),
        **dict.fromkeys(("conv_bias", "dt_bias", "D", "norm_weight", "norm_bias"), (inner,)),
        **dict.fromkeys(("in_proj", "gate_proj"), (inner, channels)),
        "conv_weight": (inner, 1, 3, 3),
        "x_proj": (rank + 2 * states, inner),
        "dt_weight": (inner, rank),
        "A": (inner, states),
        "out_proj": (channels, inner),
        "projection_weight": (channels, channels),
    }
    generator = torch.Generator().manual_seed(0)
    values = [0.5 * torch.randn(shapes[n], generator=generator, dtype=torch.float64) for n in PARAMETERS]
    values[PARAMETERS.index("A")].abs_().neg_()
    x = torch.randn(1, 2, 3, channels, generator=generator, dtype=torch.float64)
    return lambda x, *parameters: rvm_layer(x, parameters, (2, 1)), [x, *values]


def convolution_case(kind):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    values = [normal(1, 2, 3, 16), normal(16, 1, 3, 3), normal(16)]
    if kind == "conv":
        return depthwise_conv, values
    if kind == "head":
        return lambda x, *p: depthwise_head(x, (3, 5), p), [*values, normal(2, 16), normal(2)]
    return lambda x, *p: depthwise_stem(x, p), [normal(1, 2, 2, 3), *values[1:], normal(16, 2), normal(16)]


CASES = {
    "selective_scan": lambda: scan_case("cpu_native"),
    "selective_scan, torch_chunked": lambda: scan_case("torch_chunked"),
    "rvm_layer": layer_case,
    **{f"depthwise_{kind}": lambda kind=kind: convolution_case(kind) for kind in ("conv", "stem", "head")},
}
pytestmark = [pytestmark, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]()


def tangents_for(values):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(v.shape, generator=generator, dtype=v.dtype) for v in values]


def finite_difference(function, values, tangents, step=1e-6):
    ahead, behind = (function(*(v + s * t for v, t in zip(values, tangents))) for s in (step, -step))
    return (ahead - behind) / (2 * step)


@pytest.mark.parametrize("grad_mode", [True, False], ids=["grad", "no_grad"])
@pytest.mark.parametrize("requires_grad", [True, False], ids=["requires_grad", "plain"])
def test_forward_mode(case, grad_mode, requires_grad):
    function, values = case
    tangents = tangents_for(values)
    expected = finite_difference(function, values, tangents)
    values = [v.clone().requires_grad_(requires_grad) for v in values]
    with torch.set_grad_enabled(grad_mode):
        _, by_transform = torch.func.jvp(function, tuple(values), tuple(tangents))
        with forward_ad.dual_level():
            dual = function(*(forward_ad.make_dual(v, t) for v, t in zip(values, tangents, strict=True)))
            by_level = forward_ad.unpack_dual(dual).tangent
    torch.testing.assert_close(by_transform.detach(), expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(by_level.detach(), expected, rtol=1e-6, atol=1e-7)


def test_one_operand_has_a_tangent(case):
    function, values = case
    for i in range(len(values)):
        tangents = [t if i == j else torch.zeros_like(t) for j, t in enumerate(tangents_for(values))]
        with forward_ad.dual_level():
            given = [forward_ad.make_dual(v, t) if i == j else v for j, (v, t) in enumerate(zip(values, tangents))]
            tangent = forward_ad.unpack_dual(function(*given)).tangent
        expected = finite_difference(function, values, tangents)
        torch.testing.assert_close(tangent, expected, rtol=1e-6, atol=1e-7)


def test_second_derivatives(case):
    """Those of the gradients that the operators compute themselves, by finite differences."""
    function, values = case
    # The image of a stem has no gradient there.
    leaves = [
        v.requires_grad_(function.__code__.co_names[:1] != ("depthwise_stem",) or i > 0) for i, v in enumerate(values)
    ]
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)


def test_third_derivatives():
    function, values = scan_case("cpu_native")
    u = values[0].requires_grad_()
    (first,) = torch.autograd.grad(function(u, *values[1:]).pow(3).sum(), u, create_graph=True)
    (second,) = torch.autograd.grad(first.pow(2).sum(), u, create_graph=True)
    (third,) = torch.autograd.grad(second.sum(), u)
    assert third.any()

    def of_reference(u):
        def cubed(u):
            return selective_scan(u, *values[1:], True, backend="reference").pow(3).sum()

        return torch.func.grad(lambda u: torch.func.grad(cubed)(u).pow(2).sum())(u)

    torch.testing.assert_close(third, torch.func.grad(lambda u: of_reference(u).sum())(u.detach()))


def test_transforms(case):
    function, values = case
    expected = function(*values)
    x, *parameters = values
    grads = torch.func.grad(lambda *v: function(*v).square().sum(), argnums=tuple(range(len(values))))(*values)
    leaves = [x, *(p.clone().requires_grad_() for p in parameters)]
    wanted = torch.autograd.grad(function(*leaves).square().sum(), leaves[1:])
    for got, want in zip(grads[1:], wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(torch.func.functionalize(function)(*values), expected)

    jacobian = torch.func.jacrev(lambda p: function(x, p, *parameters[1:]).flatten()[:3])(parameters[0])
    tangent = tangents_for(parameters)[0]
    difference = finite_difference(lambda p: function(x, p, *parameters[1:]).flatten()[:3], [parameters[0]], [tangent])
    torch.testing.assert_close((jacobian * tangent).flatten(1).sum(1), difference, rtol=1e-6, atol=1e-7)


def test_vmap(case):
    function, values = case
    several = [torch.stack([v, 2 * v, 3 * v], 1 if i else 0) for i, v in enumerate(values)]
    dims = tuple(1 if i else 0 for i in range(len(values)))
    expected = torch.stack([function(*(v.select(d, k) for v, d in zip(several, dims))) for k in range(3)])
    torch.testing.assert_close(torch.vmap(function, in_dims=dims)(*several), expected)
    alone = torch.vmap(function, in_dims=(0, *[None] * (len(values) - 1)))(several[0], *values[1:])
    torch.testing.assert_close(alone, torch.stack([function(x, *values[1:]) for x in several[0]]))
    sample = torch.func.grad(lambda p, x: function(x, p, *values[2:]).square().sum())
    each = torch.vmap(sample, in_dims=(None, 0))(values[1], several[0])
    torch.testing.assert_close(each, torch.stack([sample(values[1], x) for x in several[0]]))


def test_batched_gradients(case):
    """``is_grads_batched``, once more derived."""
    function, values = case
    leaves = [
        v.requires_grad_(function.__code__.co_names[:1] != ("depthwise_stem",) or i > 0) for i, v in enumerate(values)
    ]
    leaves = [leaf for leaf in leaves if leaf.requires_grad]
    unused = {"allow_unused": True, "materialize_grads": True}  # second derivatives of what is linear
    out = function(*values)
    several = torch.stack(tangents_for([out, out, out]))
    together = torch.autograd.grad(out, leaves, several, is_grads_batched=True, create_graph=True)
    seconds = torch.autograd.grad(sum(g.square().sum() for g in together), leaves, **unused)
    alone = [torch.autograd.grad(out, leaves, grad, create_graph=True) for grad in several]
    for got, expected in zip(together, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(got, torch.stack(expected))
    expected = torch.autograd.grad(sum(g.square().sum() for grads in alone for g in grads), leaves, **unused)
    torch.testing.assert_close(seconds, expected)


# The operators by themselves, as exported graphs call them.


def operators():
    scan = [v.detach() for v in make_inputs(1, 5, 2, 2).values()]
    y, _, checkpoints = scan_op(*scan, True, "cpu_native", True)
    _, (x, *parameters) = layer_case()
    out, states, argmax = rvm_layer_op(x, parameters, [2, 1], True)
    _, (image, *convolution) = convolution_case("head")
    logits = depthwise_op(2, image, [3, 5], convolution)
    return {
        "selective_scan": (scan_op, [*scan, True, "cpu_native", True]),
        "selective_scan_backward": (scan_backward_op, [y, None, checkpoints, *scan, True, "cpu_native"]),
        "rvm_layer": (rvm_layer_op, [x, parameters, [2, 1], True]),
        "rvm_layer_backward": (rvm_layer_backward_op, [out, states, argmax, x, parameters, [2, 1]]),
        "depthwise": (depthwise_op, [2, image, [3, 5], convolution]),
        "depthwise_backward": (depthwise_backward_op, [2, logits, image, [3, 5], convolution]),
    }


OPERATORS = operators() if REASON is None else {}


@pytest.mark.parametrize("grad_mode", [True, False], ids=["grad", "no_grad"])
@pytest.mark.parametrize("requires_grad", [True, False], ids=["requires_grad", "plain"])
@pytest.mark.parametrize("name", OPERATORS)
def test_operators_by_themselves_refuse_forward_mode(name, requires_grad, grad_mode):
    operator, arguments = OPERATORS[name]
    first = next(i for i, a in enumerate(arguments) if isinstance(a, torch.Tensor))

    def call(x):
        return operator(*arguments[:first], x, *arguments[first + 1 :])

    x = arguments[first].clone().requires_grad_(requires_grad)
    with torch.set_grad_enabled(grad_mode):
        with pytest.raises((NotImplementedError, RuntimeError), match="forward"), forward_ad.dual_level():
            call(forward_ad.make_dual(x, torch.ones_like(x)))
        with pytest.raises((NotImplementedError, RuntimeError), match="forward|functorch"):
            torch.func.jvp(call, (x,), (torch.ones_like(x),))


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_by_themselves_are_mapped(name):
    operator, arguments = OPERATORS[name]
    first = next(i for i, a in enumerate(arguments) if isinstance(a, torch.Tensor))
    several = torch.stack([arguments[first], 2 * arguments[first]], 1)

    def call(x):
        return operator(*arguments[:first], x, *arguments[first + 1 :])

    got, expected = torch.vmap(call, in_dims=1)(several), [call(several[:, i].contiguous()) for i in range(2)]
    flat, _ = torch.utils._pytree.tree_flatten(got)
    for tensor, pair in zip(flat, zip(*(torch.utils._pytree.tree_flatten(e)[0] for e in expected)), strict=True):
        torch.testing.assert_close(tensor, torch.stack(list(pair)))

"""Right calls of every compiled operator, at random sizes, and what the specification says of them: for the fuzz."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from nnunetv2_lightm.ops import depthwise_op, rvm_layer_op, upsample_op
from nnunetv2_lightm.ops._scan_operator import NAMES, scan_backward_op, scan_op
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
from nnunetv2_lightm.ops.upsample import upsample_backward_op


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
    pool = [rng.randint(1, 2) for _ in range(dims)]
    return Call(tensors, {"pool": pool, "keep": rng.random() < 0.5, "scan": "cpu_native"})


def _parameters(call: Call, names: tuple[str, ...] = PARAMETERS) -> list[Any]:
    """The list of parameters, of which an option may take the last one or add one."""
    given = [call.tensors[name] for name in names if name in call.tensors]
    extra = call.options.get("parameters", 0)
    return given[:-1] if extra < 0 else given + given[:extra]


def run_layer(call: Call) -> list[torch.Tensor]:
    return [rvm_layer_op(call.tensors["x"], _parameters(call), *call.options.values())[0]]


def expect_layer(call: Call) -> list[torch.Tensor]:
    return [rvm_layer_reference(call.tensors["x"], {n: call.tensors[n] for n in PARAMETERS}, call.options["pool"])]


def make_layer_backward(rng: random.Random) -> Call:
    call = make_layer(rng)
    out, checkpoints, argmax = rvm_layer_op(call.tensors["x"], _parameters(call), call.options["pool"], True)
    rest = {"grad_out": torch.randn(out.shape), "checkpoints": checkpoints, "argmax": argmax}
    options = {"pool": call.options["pool"], "scan": "cpu_native"}
    return Call(call.tensors | rest, options, kept=("checkpoints", "argmax"))


def run_layer_backward(call: Call) -> list[torch.Tensor]:
    o = call.options
    given = (*call.values("grad_out", "checkpoints", "argmax", "x"), _parameters(call), o["pool"], o["scan"])
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
    return Call(tensors, {"surroundings": surroundings, "size": spatial, "backend": "cpu_native"})


def run_convolution(call: Call) -> list[torch.Tensor]:
    o = call.options
    parameters = _parameters(call, CONVOLUTION)
    return [depthwise_op(o["surroundings"], call.tensors["x"], o["size"], parameters, o["backend"])]


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
    given = (o["surroundings"], *call.values("grad_out", "x"), o["size"], _parameters(call, CONVOLUTION), o["backend"])
    grad_x, grads = depthwise_backward_op(*given)
    return [*grads] if o["surroundings"] == STEM else [grad_x, *grads]


def expect_convolution_backward(call: Call) -> list[torch.Tensor]:
    inputs = [call.tensors["x"], *_parameters(call, CONVOLUTION)]
    grads = gradients(partial(_convolution, call), inputs, call.values("grad_out"))
    return grads[1:] if call.options["surroundings"] == STEM else grads


def make_upsample(rng: random.Random) -> Call:
    dims = rng.choice((2, 3))
    shape = (rng.randint(0, 2), *(rng.randint(1, 5) for _ in range(dims)), rng.randint(1, 20))
    return Call({"x": torch.randn(shape)}, {"size": [rng.randint(1, 9) for _ in range(dims)]})


def run_upsample(call: Call) -> list[torch.Tensor]:
    return [upsample_op(call.tensors["x"], call.options["size"])]


def expect_upsample(call: Call) -> list[torch.Tensor]:
    return _interpolated(call.tensors["x"], call.options["size"])


def _interpolated(x: torch.Tensor, size: list[int]) -> list[torch.Tensor]:
    mode = {4: "bilinear", 5: "trilinear"}[x.ndim]
    wide = x.to(compute_dtype(x)).movedim(-1, 1)
    return [F.interpolate(wide, size=size, mode=mode).movedim(1, -1).to(x.dtype)]


def make_upsample_backward(rng: random.Random) -> Call:
    call = make_upsample(rng)
    (out,) = run_upsample(call)
    # The map that was small is not passed, its size is.
    return Call({"grad": torch.randn(out.shape)}, {"size": list(call.tensors["x"].shape[1:-1])})


def run_upsample_backward(call: Call) -> list[torch.Tensor]:
    return [upsample_backward_op(call.tensors["grad"], call.options["size"])]


def expect_upsample_backward(call: Call) -> list[torch.Tensor]:
    grad, size = call.tensors["grad"], call.options["size"]
    x = grad.new_zeros(grad.shape[0], *size, grad.shape[-1])
    return gradients(lambda x: _interpolated(x, list(grad.shape[1:-1])), [x], [grad])


def gradients(function: Callable, inputs: list[torch.Tensor], grads_out: list[torch.Tensor | None]) -> list[Any]:
    """Outputs of the specification, computed in the compute dtype like the operators'."""
    dtype = compute_dtype(*inputs)
    with torch.enable_grad():
        leaves = [t.detach().to(dtype).requires_grad_() for t in inputs]
        outputs = [(y, g.to(y.dtype)) for y, g in zip(function(*leaves), grads_out, strict=True) if g is not None]
        grads = torch.autograd.grad(
            [y for y, _ in outputs], leaves, [g for _, g in outputs], allow_unused=True, materialize_grads=True
        )
    return [g.to(t.dtype) for g, t in zip(grads, inputs, strict=True)]


# A maker of right calls, the call, and what the specification says of it.
OPERATORS = {
    "selective_scan": (make_scan, run_scan, expect_scan),
    "selective_scan_backward": (make_scan_backward, run_scan_backward, expect_scan_backward),
    "rvm_layer": (make_layer, run_layer, expect_layer),
    "rvm_layer_backward": (make_layer_backward, run_layer_backward, expect_layer_backward),
    "upsample": (make_upsample, run_upsample, expect_upsample),
    "upsample_backward": (make_upsample_backward, run_upsample_backward, expect_upsample_backward),
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

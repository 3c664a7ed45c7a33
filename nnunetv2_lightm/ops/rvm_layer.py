"""The fused RVM layer as a registered PyTorch operator, where a backend has one; elsewhere the layer is put together
from PyTorch's own operators and the selective scan (:mod:`nnunetv2_lightm.layers.rvm`)."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from ._derivatives import composite_needed, gradients_of_gradients, refuse_forward_mode, register_vmap_by_loop
from ._operands import Operands, checked_once, require_tensors
from ._operator import to_contiguous
from .backends import cpu_native, native_rvm, select_backend
from .backends.native_interface import CHANNEL_MULTIPLE, RVM_PARAMETERS
from .reference import compute_dtype, rvm_layer_reference

PARAMETERS = RVM_PARAMETERS
AXES = {
    **dict.fromkeys(("norm_in_weight", "norm_in_bias", "scale", "norm_out_weight", "norm_out_bias"), ("channels",)),
    **dict.fromkeys(("conv_bias", "dt_bias", "D", "norm_weight", "norm_bias"), ("d_inner",)),
    **dict.fromkeys(("in_proj", "gate_proj"), ("d_inner", "channels")),
    "conv_weight": ("d_inner", "1", *("3",) * 3),
    "x_proj": ("dt_rank + 2 d_state", "d_inner"),
    "dt_weight": ("d_inner", "dt_rank"),
    "A": ("d_inner", "d_state"),
    "out_proj": ("channels", "d_inner"),
    "projection_weight": ("out_channels", "channels"),
    "projection_bias": ("out_channels",),
}
# The place of a maximum in its window is kept in a byte.
MAX_WINDOW = 256


# torch.compile shall take the answer as a constant, not trace how it was found.
@torch.compiler.assume_constant_result
def fused_rvm_layer_usable(device_type: str, channels: int, inner: int, out_channels: int) -> bool:
    """Whether :func:`rvm_layer` runs on the device: where the selected scan backend is the compiled one."""
    if select_backend(device_type) != cpu_native.NAME:
        return False
    return native_rvm.layer_not_supported_reason(device_type, channels, inner, out_channels) is None


def rvm_layer(x: Tensor, parameters: Sequence[Tensor], pool: Sequence[int]) -> Tensor:
    """Equations (1) to (3) of the paper in one operator, and the max-pooling after it.

    Computes in float32 whatever autocast says (in float64 if an input is float64). Second derivatives, forward-mode
    ones and the transforms of ``torch.func`` are computed by the reference, slowly.

    Args:
        x: Feature map, (batch, *spatial, channels), 2D or 3D.
        parameters: The layer's, in the order of ``PARAMETERS``; A is (d_inner, d_state) and negative.
        pool: Stride and window of the max-pooling on each axis, together at most 256 voxels; 1 everywhere: none.

    Returns: (batch, *(spatial // pool), out_channels), dtype of x.

    Raises:
        ValueError: if an operand's shape, dtype, device or memory is not as described.
    """
    require_tensors("rvm_layer", (x, *parameters))
    if composite_needed():
        _check_layer((x, *parameters), tuple(pool), stored=False)
        return rvm_layer_reference(x, dict(zip(PARAMETERS, parameters, strict=True)), pool)
    keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, *parameters))
    return rvm_layer_op(x, list(parameters), list(pool), keep)[0]


@torch.library.custom_op("nnunetv2_lightm::rvm_layer", mutates_args=())
def rvm_layer_op(
    x: Tensor, parameters: list[Tensor], pool: list[int], keep_checkpoints: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The output, and for the backward pass the scan's checkpoints and the places of the maxima (empty if not kept)."""
    refuse_forward_mode("rvm_layer")
    _check_layer((x, *parameters), tuple(pool))
    dtype = compute_dtype(x, *parameters)
    out, checkpoints, argmax = native_rvm.forward(
        to_contiguous(x, dtype), [to_contiguous(p, dtype) for p in parameters], pool, keep_checkpoints
    )
    return out.to(x.dtype), checkpoints, argmax


@rvm_layer_op.register_fake
def _(x, parameters, pool, keep_checkpoints):
    _check_layer((x, *parameters), tuple(pool), stored=False)
    named = dict(zip(PARAMETERS, parameters, strict=True))
    pooled = [size // stride for size, stride in zip(x.shape[1:-1], pool, strict=True)]
    out = x.new_empty(x.shape[0], *pooled, named["projection_weight"].shape[0])
    d_inner, d_state = named["A"].shape
    shape = (0,)
    if keep_checkpoints:
        shape = (x.shape[0], native_rvm.checkpoint_count(x.shape[1:-1], parameters), d_state, d_inner)
    argmax = x.new_empty(out.shape if keep_checkpoints and max(pool) > 1 else (0,), dtype=torch.uint8)
    return out, x.new_empty(shape, dtype=compute_dtype(x, *parameters)), argmax


@torch.library.custom_op("nnunetv2_lightm::rvm_layer_backward", mutates_args=())
def rvm_layer_backward_op(
    grad_out: Tensor, checkpoints: Tensor, argmax: Tensor, x: Tensor, parameters: list[Tensor], pool: list[int]
) -> tuple[Tensor, list[Tensor]]:
    """Gradients of x and of the parameters, in their dtypes."""
    refuse_forward_mode("rvm_layer_backward")
    _check_layer_backward((x, *parameters, grad_out, checkpoints, argmax), tuple(pool))
    dtype = compute_dtype(x, *parameters)
    grad_x, grads = native_rvm.backward(
        to_contiguous(grad_out, dtype),
        checkpoints,
        argmax,
        to_contiguous(x, dtype),
        [to_contiguous(p, dtype) for p in parameters],
        pool,
    )
    return grad_x.to(x.dtype), [grad.to(p.dtype) for grad, p in zip(grads, parameters, strict=True)]


@rvm_layer_backward_op.register_fake
def _(grad_out, checkpoints, argmax, x, parameters, pool):
    _check_layer_backward((x, *parameters, grad_out, checkpoints, argmax), tuple(pool), stored=False)
    contiguous = {"memory_format": torch.contiguous_format}
    return torch.empty_like(x, **contiguous), [torch.empty_like(p, **contiguous) for p in parameters]


@checked_once
def _check_layer(tensors: tuple[Tensor, ...], pool: tuple[int, ...], *, stored: bool) -> None:
    """x, then the parameters in the order of PARAMETERS."""
    if len(tensors) != 1 + len(PARAMETERS):
        given = f"{len(tensors) - 1} parameters"
        raise ValueError(f"rvm_layer: {given} are given; expected {len(PARAMETERS)}: {', '.join(PARAMETERS)}")
    operands = Operands("rvm_layer", dict(zip(("x", *PARAMETERS), tensors, strict=True)), stored)
    operands.require_floats()
    _require_cpu(operands, tensors[0], stored)
    sizes = _sizes(operands, tensors)
    dims = tensors[0].ndim - 2
    if 0 in tensors[0].shape[1:-1]:
        operands.refuse(f"`x` is {tuple(tensors[0].shape)}; expected at least 1 on each spatial axis")
    operands.require_shapes({**AXES, "conv_weight": AXES["conv_weight"][: 2 + dims]}, sizes, "`x` and the others")
    for axis in ("channels", "d_inner", "out_channels"):
        if sizes[axis] < 1 or sizes[axis] % CHANNEL_MULTIPLE:
            operands.refuse(f"{axis} is {sizes[axis]}; expected a multiple of {CHANNEL_MULTIPLE}")
    for axis in ("d_state", "dt_rank"):
        if sizes[axis] < 1:
            operands.refuse(f"{axis} is {sizes[axis]}; expected at least 1")
    if len(pool) != dims or min(pool) < 1 or prod(pool) > MAX_WINDOW:
        operands.refuse(f"pool is {pool}; expected {dims} positive numbers of product {MAX_WINDOW} at most")


@checked_once
def _check_layer_backward(tensors: tuple[Tensor, ...], pool: tuple[int, ...], *, stored: bool) -> None:
    """x, the parameters, then what else the backward pass gets: grad_out, checkpoints, argmax."""
    layer, rest = tensors[:-3], ("grad_out", "checkpoints", "argmax")
    _check_layer(layer, pool, stored=False)
    named = dict(zip(("x", *PARAMETERS, *rest), tensors, strict=True))
    operands = Operands("rvm_layer_backward", named, stored)
    _require_cpu(operands, layer[0], stored)
    batch, *spatial, _ = layer[0].shape
    pooled = [size // stride for size, stride in zip(spatial, pool, strict=True)]
    out = (batch, *pooled, named["projection_bias"].shape[0])
    states = (batch, native_rvm.checkpoint_count(spatial, layer[1:]), *reversed(named["A"].shape))
    for name, expected in zip(rest, (out, states, out if max(pool) > 1 else (0,)), strict=True):
        if tuple(named[name].shape) != expected:
            operands.refuse(f"`{name}` is {tuple(named[name].shape)}; expected {expected} from `x` and the parameters")
    operands.require_floats("grad_out")
    operands.require_dtype("checkpoints", compute_dtype(*layer))
    operands.require_dtype("argmax", torch.uint8)


def _require_cpu(operands: Operands, x: Tensor, stored: bool) -> None:
    reason = native_rvm.cpu_native.not_supported_reason(x.device.type) if stored else None
    if reason is not None:
        operands.refuse(f"`x` is on {x.device}, where the compiled layer does not run: {reason}")


def _sizes(operands: Operands, tensors: tuple[Tensor, ...]) -> dict[str, int]:
    named = dict(zip(("x", *PARAMETERS), tensors, strict=True))
    if named["x"].ndim not in (4, 5):
        operands.refuse(f"`x` is {tuple(named['x'].shape)}; expected (batch, *spatial, channels), 2D or 3D")
    for name in ("A", "dt_weight", "projection_weight"):
        if named[name].ndim != 2:
            operands.refuse(f"`{name}` is {tuple(named[name].shape)}; expected two axes, ({', '.join(AXES[name])})")
    sizes = {"channels": named["x"].shape[-1], "out_channels": named["projection_weight"].shape[0], "1": 1, "3": 3}
    sizes["d_inner"], sizes["d_state"] = named["A"].shape
    sizes["dt_rank"] = named["dt_weight"].shape[1]
    return sizes | {"dt_rank + 2 d_state": sizes["dt_rank"] + 2 * sizes["d_state"]}


def _setup_context(ctx, inputs, output):
    x, parameters, ctx.pool, ctx.has_checkpoints = inputs
    _, checkpoints, argmax = output
    ctx.mark_non_differentiable(checkpoints, argmax)
    ctx.save_for_backward(checkpoints, argmax, x, *parameters)


def _backward(ctx, grad_out, *_):
    if not ctx.has_checkpoints:
        raise RuntimeError("rvm_layer was called without checkpoints; call it through ops.rvm_layer")
    checkpoints, argmax, x, *parameters = ctx.saved_tensors
    grad_x, grads = rvm_layer_backward_op(grad_out, checkpoints, argmax, x, parameters, ctx.pool)
    return grad_x, grads, None, None


rvm_layer_op.register_autograd(_backward, setup_context=_setup_context)


def _setup_second(ctx, inputs, output):
    grad_out, _, _, x, parameters, ctx.pool = inputs
    ctx.save_for_backward(grad_out, x, *parameters)


def _backward_of_backward(ctx, cotangent, cotangents):
    grad_out, *inputs = ctx.saved_tensors

    def layer(x, *parameters):
        return [rvm_layer_reference(x, dict(zip(PARAMETERS, parameters, strict=True)), ctx.pool)]

    grads, (second,) = gradients_of_gradients(layer, inputs, [grad_out], [cotangent, *cotangents])
    return second, None, None, grads[0], grads[1:], None


rvm_layer_backward_op.register_autograd(_backward_of_backward, setup_context=_setup_second)
register_vmap_by_loop(rvm_layer_op)
register_vmap_by_loop(rvm_layer_backward_op)

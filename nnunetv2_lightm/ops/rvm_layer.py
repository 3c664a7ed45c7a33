"""The RVM layer as one registered PyTorch operator, which recomputes in the backward pass instead of saving: compiled
on a CPU, elsewhere on PyTorch's operators and a backend of the scan. With the reference scan the layer is composed of
PyTorch's own operators instead (:mod:`nnunetv2_lightm.layers.rvm`)."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from ._derivatives import composite_needed, gradients_of_gradients, refuse_forward_mode, register_vmap_by_loop
from ._dtypes import autocast_dtype, to_contiguous
from ._layer_backend import require_backend
from ._operands import Operands, checked_once, require_tensors
from .backends import cpu_native, load_backend, native_rvm, select_backend, starts_from_a_state
from .backends.native_interface import CHANNEL_MULTIPLE, RVM_PARAMETERS
from .backends.recomputing import rvm as recomputing_rvm
from .graphs import constant_in_graphs
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
# The index of a maximum in its window is kept in a byte.
MAX_WINDOW = 256


@constant_in_graphs
def fused_rvm_layer_usable(device_type: str, channels: int, inner: int, out_channels: int) -> bool:
    """Whether :func:`rvm_layer` runs on the device: with any scan that can start from a given state.

    False on "meta", where operators are counted.
    """
    if device_type == "meta":
        return False
    name = select_backend(device_type)
    if name == cpu_native.NAME:
        return native_rvm.layer_not_supported_reason(device_type, channels, inner, out_channels) is None
    return starts_from_a_state(name)


def rvm_layer(x: Tensor, parameters: Sequence[Tensor], pool: Sequence[int]) -> Tensor:
    """Equations (1) to (3) of the paper in one operator, and the max-pooling after it.

    The compiled layer computes in float32 whatever autocast says. Elsewhere the matrix products and the convolution
    follow autocast, like PyTorch's operators; norms, scan, gate and residual stay in float32. If an input is float64,
    everything is computed in float64. Second derivatives, forward-mode ones and the transforms of ``torch.func`` are
    computed by the reference, slowly.

    Args:
        x: Feature map, (batch, *spatial, channels), 2D or 3D.
        parameters: The layer's, in the order of ``PARAMETERS``; A is (d_inner, d_state) and negative.
        pool: Stride and window of the max-pooling on each axis, together at most 256 voxels; 1 everywhere: none.

    Returns: (batch, *(spatial // pool), out_channels), in x's dtype or, where the layer follows autocast, autocast's.

    Raises:
        ValueError: if an operand's shape, dtype, device or memory is not as described.
    """
    require_tensors("rvm_layer", (x, *parameters))
    scan = select_backend(x.device.type)
    if composite_needed():
        _check_layer((x, *parameters), tuple(pool), scan, stored=False)
        return rvm_layer_reference(x, dict(zip(PARAMETERS, parameters, strict=True)), pool)
    keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, *parameters))
    product_dtype = None if scan == cpu_native.NAME else autocast_dtype(x, *parameters)
    return rvm_layer_op(x, list(parameters), list(pool), keep, scan, product_dtype)[0]


@torch.library.custom_op("nnunetv2_lightm::rvm_layer", mutates_args=())
def rvm_layer_op(
    x: Tensor,
    parameters: list[Tensor],
    pool: list[int],
    keep_checkpoints: bool,
    scan: str = cpu_native.NAME,
    product_dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The output, and for the backward pass the scan's checkpoints and the indices of the maxima (empty if not kept).

    scan: the backend's name; product_dtype: autocast's, None: without autocast; the compiled layer has no use for it.
    """
    refuse_forward_mode("rvm_layer")
    _check_layer((x, *parameters), tuple(pool), scan)
    dtype = compute_dtype(x, *parameters)
    if scan == cpu_native.NAME:
        out, checkpoints, argmax = native_rvm.forward(
            to_contiguous(x, dtype), [to_contiguous(p, dtype) for p in parameters], pool, keep_checkpoints
        )
        return out.to(x.dtype), checkpoints, argmax
    with torch.autocast(x.device.type, enabled=False):
        return recomputing_rvm.forward(
            x.contiguous(),
            parameters,
            pool,
            keep_checkpoints,
            load_backend(scan),
            dtype,
            product_dtype or dtype,
            product_dtype or x.dtype,
        )


@rvm_layer_op.register_fake
def _(x, parameters, pool, keep_checkpoints, scan=cpu_native.NAME, product_dtype=None):
    _check_layer((x, *parameters), tuple(pool), scan, stored=False)
    named = dict(zip(PARAMETERS, parameters, strict=True))
    pooled = [size // stride for size, stride in zip(x.shape[1:-1], pool, strict=True)]
    out_dtype = x.dtype if scan == cpu_native.NAME else product_dtype or x.dtype
    out = x.new_empty((x.shape[0], *pooled, named["projection_weight"].shape[0]), dtype=out_dtype)
    d_inner, d_state = named["A"].shape
    shape = (0,)
    if keep_checkpoints:
        shape = (x.shape[0], _checkpoint_count(x.shape[1:-1], parameters, pool, scan), d_state, d_inner)
    argmax = x.new_empty(out.shape if keep_checkpoints and max(pool) > 1 else (0,), dtype=torch.uint8)
    return out, x.new_empty(shape, dtype=compute_dtype(x, *parameters)), argmax


@torch.library.custom_op("nnunetv2_lightm::rvm_layer_backward", mutates_args=())
def rvm_layer_backward_op(
    grad_out: Tensor,
    checkpoints: Tensor,
    argmax: Tensor,
    x: Tensor,
    parameters: list[Tensor],
    pool: list[int],
    scan: str = cpu_native.NAME,
    product_dtype: torch.dtype | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Gradients of x and of the parameters, in their dtypes."""
    refuse_forward_mode("rvm_layer_backward")
    _check_layer_backward((x, *parameters, grad_out, checkpoints, argmax), tuple(pool), scan)
    dtype = compute_dtype(x, *parameters)
    kept = (checkpoints.contiguous(), argmax.contiguous())
    if scan == cpu_native.NAME:
        grad_x, grads = native_rvm.backward(
            to_contiguous(grad_out, dtype),
            *kept,
            to_contiguous(x, dtype),
            [to_contiguous(p, dtype) for p in parameters],
            pool,
        )
    else:
        with torch.autocast(x.device.type, enabled=False):
            grad_x, grads = recomputing_rvm.backward(
                grad_out.contiguous(),
                *kept,
                x.contiguous(),
                parameters,
                pool,
                load_backend(scan),
                dtype,
                product_dtype or dtype,
            )
    return grad_x.to(x.dtype), [grad.to(p.dtype) for grad, p in zip(grads, parameters, strict=True)]


@rvm_layer_backward_op.register_fake
def _(grad_out, checkpoints, argmax, x, parameters, pool, scan=cpu_native.NAME, product_dtype=None):
    _check_layer_backward((x, *parameters, grad_out, checkpoints, argmax), tuple(pool), scan, stored=False)
    contiguous = {"memory_format": torch.contiguous_format}
    return torch.empty_like(x, **contiguous), [torch.empty_like(p, **contiguous) for p in parameters]


def _checkpoint_count(spatial: Sequence[int], parameters: Sequence[Tensor], pool: Sequence[int], scan: str) -> int:
    """Checkpointed states of each image."""
    if scan == cpu_native.NAME:
        return native_rvm.checkpoint_count(spatial, parameters)
    channels = parameters[0].shape[0]
    return recomputing_rvm.checkpoint_count(spatial, channels, pool, load_backend(scan))


@checked_once
def _check_layer(tensors: tuple[Tensor, ...], pool: tuple[int, ...], scan: str, *, stored: bool) -> None:
    """x, then the parameters in the order of PARAMETERS."""
    if len(tensors) != 1 + len(PARAMETERS):
        given = f"{len(tensors) - 1} parameters"
        raise ValueError(f"rvm_layer: {given} are given; expected {len(PARAMETERS)}: {', '.join(PARAMETERS)}")
    operands = Operands("rvm_layer", dict(zip(("x", *PARAMETERS), tensors, strict=True)), stored)
    operands.require_floats()
    if scan != cpu_native.NAME and not starts_from_a_state(scan):
        operands.refuse(f"the scan backend {scan!r} cannot start from a given state, as the layer needs it")
    require_backend(operands, tensors, scan, stored)
    sizes = _sizes(operands, tensors)
    dims = tensors[0].ndim - 2
    if 0 in tensors[0].shape[1:-1]:
        operands.refuse(f"`x` is {tuple(tensors[0].shape)}; expected at least 1 on each spatial axis")
    operands.require_shapes({**AXES, "conv_weight": AXES["conv_weight"][: 2 + dims]}, sizes, "`x` and the others")
    for axis in ("channels", "d_inner", "out_channels"):
        if scan == cpu_native.NAME and (sizes[axis] < 1 or sizes[axis] % CHANNEL_MULTIPLE):
            operands.refuse(f"{axis} is {sizes[axis]}; expected a multiple of {CHANNEL_MULTIPLE}")
        if sizes[axis] < 1:
            operands.refuse(f"{axis} is {sizes[axis]}; expected at least 1")
    for axis in ("d_state", "dt_rank"):
        if sizes[axis] < 1:
            operands.refuse(f"{axis} is {sizes[axis]}; expected at least 1")
    if len(pool) != dims or min(pool) < 1 or prod(pool) > MAX_WINDOW:
        operands.refuse(f"pool is {pool}; expected {dims} positive numbers of product {MAX_WINDOW} at most")


@checked_once
def _check_layer_backward(tensors: tuple[Tensor, ...], pool: tuple[int, ...], scan: str, *, stored: bool) -> None:
    """x, the parameters, then what else the backward pass gets: grad_out, checkpoints, argmax."""
    layer, rest = tensors[:-3], ("grad_out", "checkpoints", "argmax")
    _check_layer(layer, pool, scan, stored=False)
    named = dict(zip(("x", *PARAMETERS, *rest), tensors, strict=True))
    operands = Operands("rvm_layer_backward", named, stored)
    require_backend(operands, layer, scan, stored)
    batch, *spatial, _ = layer[0].shape
    pooled = [size // stride for size, stride in zip(spatial, pool, strict=True)]
    out = (batch, *pooled, named["projection_bias"].shape[0])
    states = (batch, _checkpoint_count(spatial, layer[1:], pool, scan), *reversed(named["A"].shape))
    for name, expected in zip(rest, (out, states, out if max(pool) > 1 else (0,)), strict=True):
        if tuple(named[name].shape) != expected:
            operands.refuse(f"`{name}` is {tuple(named[name].shape)}; expected {expected} from `x` and the parameters")
    operands.require_floats("grad_out")
    operands.require_dtype("checkpoints", compute_dtype(*layer))
    operands.require_dtype("argmax", torch.uint8)


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
    x, parameters, ctx.pool, ctx.has_checkpoints, ctx.scan, ctx.product_dtype = inputs
    _, checkpoints, argmax = output
    ctx.set_materialize_grads(False)  # zeros of the size of all checkpoints
    ctx.mark_non_differentiable(checkpoints, argmax)
    ctx.save_for_backward(checkpoints, argmax, x, *parameters)


def _backward(ctx, grad_out, *_):
    if not ctx.has_checkpoints:
        raise RuntimeError("rvm_layer was called without checkpoints; call it through ops.rvm_layer")
    checkpoints, argmax, x, *parameters = ctx.saved_tensors
    if grad_out is None:
        return None, [None] * len(parameters), None, None, None, None
    saved = (checkpoints, argmax, x, parameters)
    grad_x, grads = rvm_layer_backward_op(grad_out, *saved, ctx.pool, ctx.scan, ctx.product_dtype)
    return grad_x, grads, None, None, None, None


rvm_layer_op.register_autograd(_backward, setup_context=_setup_context)


def _setup_second(ctx, inputs, output):
    grad_out, _, _, x, parameters, ctx.pool, *_ = inputs
    ctx.save_for_backward(grad_out, x, *parameters)


def _backward_of_backward(ctx, cotangent, cotangents):
    grad_out, *inputs = ctx.saved_tensors

    def layer(x, *parameters):
        return [rvm_layer_reference(x, dict(zip(PARAMETERS, parameters, strict=True)), ctx.pool)]

    grads, (second,) = gradients_of_gradients(layer, inputs, [grad_out], [cotangent, *cotangents])
    return second, None, None, grads[0], grads[1:], None, None, None


rvm_layer_backward_op.register_autograd(_backward_of_backward, setup_context=_setup_second)
register_vmap_by_loop(rvm_layer_op)
register_vmap_by_loop(rvm_layer_backward_op)

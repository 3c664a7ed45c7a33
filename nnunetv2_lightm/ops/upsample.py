"""Linear upsampling as a registered PyTorch operator: in the map's dtype, with a deterministic gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ._derivatives import composite_needed, refuse_forward_mode, register_vmap_by_loop
from ._operands import Operands, checked_once, require_tensors
from .backends import cpu_native, select_backend, starts_from_a_state
from .backends.recomputing import interpolation
from .graphs import constant_in_graphs


@constant_in_graphs
def gathered_upsample_usable(device_type: str) -> bool:
    """Whether to use :func:`upsample`: with the recomputing layers, but not with the compiled ones."""
    name = select_backend(device_type)
    return device_type != "meta" and name != cpu_native.NAME and starts_from_a_state(name)


def upsample(x: Tensor, size: Sequence[int]) -> Tensor:
    """Linear interpolation to a size, corners not aligned, in x's dtype under autocast too.

    Args:
        x: (batch, *spatial, channels), 2D or 3D.
        size: Spatial size of the output.

    Returns: (batch, *size, channels).
    """
    require_tensors("upsample", (x,))
    if composite_needed():
        _check((x,), tuple(size), stored=False)
        return interpolation.upsample(x, size)
    return upsample_op(x, list(size))


@torch.library.custom_op("nnunetv2_lightm::upsample", mutates_args=())
def upsample_op(x: Tensor, size: list[int]) -> Tensor:
    """As :func:`upsample`."""
    refuse_forward_mode("upsample")
    _check((x,), tuple(size))
    with torch.autocast(x.device.type, enabled=False):
        return interpolation.upsample(x, size)


@upsample_op.register_fake
def _(x, size):
    _check((x,), tuple(size), stored=False)
    return x.new_empty((x.shape[0], *size, x.shape[-1]))


@torch.library.custom_op("nnunetv2_lightm::upsample_backward", mutates_args=())
def upsample_backward_op(grad: Tensor, spatial: list[int]) -> Tensor:
    """Gradient of a map of this spatial size."""
    refuse_forward_mode("upsample_backward")
    _check((grad,), tuple(spatial))
    with torch.autocast(grad.device.type, enabled=False):
        return interpolation.upsample_backward(grad.contiguous(), spatial).contiguous()


@upsample_backward_op.register_fake
def _(grad, spatial):
    _check((grad,), tuple(spatial), stored=False)
    return grad.new_empty((grad.shape[0], *spatial, grad.shape[-1]))


@checked_once
def _check(tensors: tuple[Tensor, ...], size: tuple[int, ...], *, stored: bool) -> None:
    """tensors: x, or the gradient of the output; size: spatial size of the other one."""
    operands = Operands("upsample", {"x": tensors[0]}, stored)
    operands.require_floats()
    x = tensors[0]
    if x.ndim not in (4, 5):
        operands.refuse(f"`x` is {tuple(x.shape)}; expected (batch, *spatial, channels), 2D or 3D")
    if x.shape[-1] < 1:
        operands.refuse(f"`x` is {tuple(x.shape)}; expected at least 1 channel")
    if len(size) != x.ndim - 2 or min((*size, *x.shape[1:-1])) < 1:
        operands.refuse(f"size is {size}, `x` {tuple(x.shape)}; expected {x.ndim - 2} positive numbers in both")


def _setup_context(ctx, inputs, output):
    ctx.spatial = list(inputs[0].shape[1:-1])


def _backward(ctx, grad):
    return upsample_backward_op(grad, ctx.spatial), None


upsample_op.register_autograd(_backward, setup_context=_setup_context)


def _setup_second(ctx, inputs, output):
    ctx.size = list(inputs[0].shape[1:-1])


def _backward_of_backward(ctx, cotangent):
    return upsample_op(cotangent, ctx.size), None  # linear: the gradient of its gradient is itself


upsample_backward_op.register_autograd(_backward_of_backward, setup_context=_setup_second)
register_vmap_by_loop(upsample_op)
register_vmap_by_loop(upsample_backward_op)

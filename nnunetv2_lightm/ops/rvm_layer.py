"""The fused RVM layer as a registered PyTorch operator, where a backend has one; elsewhere the layer is put together
from PyTorch's own operators and the selective scan (:mod:`nnunetv2_lightm.layers.rvm`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ._operator import compute_dtype, to_contiguous
from .backends import cpu_native, native_rvm, select_backend
from .backends.native_library import RVM_PARAMETERS

PARAMETERS = RVM_PARAMETERS


# torch.compile shall take the answer as a constant, not trace how it was found.
@torch.compiler.assume_constant_result
def fused_rvm_layer_usable(device_type: str, channels: int, inner: int, out_channels: int) -> bool:
    """Whether :func:`rvm_layer` runs on the device: where the selected scan backend is the compiled one."""
    if select_backend(device_type) != cpu_native.NAME:
        return False
    return native_rvm.layer_not_supported_reason(device_type, channels, inner, out_channels) is None


def rvm_layer(x: Tensor, parameters: Sequence[Tensor], pool: Sequence[int]) -> Tensor:
    """Equations (1) to (3) of the paper in one operator, and the max-pooling after it.

    Computes in float32 whatever autocast says (in float64 if an input is float64).

    Args:
        x: Feature map, (batch, *spatial, channels), 2D or 3D.
        parameters: The layer's, in the order of ``PARAMETERS``; A is (d_inner, d_state) and negative.
        pool: Stride and window of the max-pooling on each axis; 1 everywhere: none.

    Returns: (batch, *(spatial // pool), out_channels), dtype of x.
    """
    keep = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *parameters))
    return rvm_layer_op(x, list(parameters), list(pool), keep)[0]


@torch.library.custom_op("nnunetv2_lightm::rvm_layer", mutates_args=())
def rvm_layer_op(
    x: Tensor, parameters: list[Tensor], pool: list[int], keep_checkpoints: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The output, and for the backward pass the scan's checkpoints and the places of the maxima (empty if not kept)."""
    dtype = compute_dtype(x, *parameters)
    out, checkpoints, argmax = native_rvm.forward(
        to_contiguous(x, dtype), [to_contiguous(p, dtype) for p in parameters], pool, keep_checkpoints
    )
    return out.to(x.dtype), checkpoints, argmax


@rvm_layer_op.register_fake
def _(x, parameters, pool, keep_checkpoints):
    named = dict(zip(PARAMETERS, parameters, strict=True))
    pooled = [size // stride for size, stride in zip(x.shape[1:-1], pool, strict=True)]
    out = x.new_empty(x.shape[0], *pooled, named["projection_weight"].shape[0])
    d_inner, d_state = named["A"].shape
    chunks = native_rvm.checkpoint_count(x.shape, parameters)
    shape = (x.shape[0], chunks, d_state, d_inner) if keep_checkpoints else (0,)
    argmax = x.new_empty(out.shape if keep_checkpoints and max(pool) > 1 else (0,), dtype=torch.uint8)
    return out, x.new_empty(shape, dtype=compute_dtype(x, *parameters)), argmax


@torch.library.custom_op("nnunetv2_lightm::rvm_layer_backward", mutates_args=())
def rvm_layer_backward_op(
    grad_out: Tensor, checkpoints: Tensor, argmax: Tensor, x: Tensor, parameters: list[Tensor], pool: list[int]
) -> tuple[Tensor, list[Tensor]]:
    """Gradients of x and of the parameters, in their dtypes."""
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
    contiguous = {"memory_format": torch.contiguous_format}
    return torch.empty_like(x, **contiguous), [torch.empty_like(p, **contiguous) for p in parameters]


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

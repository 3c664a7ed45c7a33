"""Depthwise convolution and what surrounds it, as one registered PyTorch operator where a backend has it; elsewhere
PyTorch's own operators do the same (:mod:`nnunetv2_lightm.layers`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ._operator import compute_dtype, to_contiguous
from .backends import cpu_native, native_depthwise, select_backend
from .backends.native_depthwise import HEAD, PLAIN, STEM


# torch.compile shall take the answer as a constant, not trace how it was found.
@torch.compiler.assume_constant_result
def fused_depthwise_usable(device_type: str, channels: int) -> bool:
    """Whether these functions run on the device: where the selected scan backend is the compiled one."""
    if select_backend(device_type) != cpu_native.NAME:
        return False
    return native_depthwise.not_supported_reason(device_type, channels) is None


def depthwise_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Depthwise convolution, 3 taps on each axis, zeros beyond the image.

    All three functions compute in float32 whatever autocast says (in float64 if an input is float64) and return x's
    dtype.

    Args:
        x: (batch, *spatial, channels), 2D or 3D.
        weight: (channels, 1, 3, [3,] 3).
        bias: (channels,).

    Returns: as x.
    """
    return depthwise_op(PLAIN, x, list(x.shape[1:-1]), [weight, bias])


def depthwise_stem(image: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Pointwise layer, then depthwise convolution. The image gets no gradient.

    Args:
        image: (batch, input_channels, *spatial).
        parameters: Weight and bias of the convolution, then of the pointwise layer, (channels, input_channels).

    Returns: (batch, *spatial, channels).
    """
    return depthwise_op(STEM, image, list(image.shape[2:]), list(parameters))


def depthwise_head(x: Tensor, size: Sequence[int], parameters: Sequence[Tensor]) -> Tensor:
    """Linear interpolation to a size (corners not aligned), depthwise convolution, pointwise layer.

    Args:
        x: (batch, *spatial, channels).
        size: Of the output.
        parameters: Weight and bias of the convolution, then of the pointwise layer, (num_classes, channels).

    Returns: Logits, (batch, num_classes, *size).
    """
    return depthwise_op(HEAD, x, list(size), list(parameters))


@torch.library.custom_op("nnunetv2_lightm::depthwise", mutates_args=())
def depthwise_op(surroundings: int, x: Tensor, size: list[int], parameters: list[Tensor]) -> Tensor:
    """Any of the three; size: spatial, of the output."""
    dtype = compute_dtype(x, *parameters)
    out = native_depthwise.forward(
        surroundings, to_contiguous(x, dtype), size, [to_contiguous(p, dtype) for p in parameters]
    )
    return out.to(x.dtype)


@depthwise_op.register_fake
def _(surroundings, x, size, parameters):
    return x.new_empty(native_depthwise.out_shape(surroundings, x, size, parameters))


@torch.library.custom_op("nnunetv2_lightm::depthwise_backward", mutates_args=())
def depthwise_backward_op(
    surroundings: int, grad_out: Tensor, x: Tensor, size: list[int], parameters: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Gradients of x (empty for an image) and of the parameters, in their dtypes."""
    dtype = compute_dtype(x, *parameters)
    grad_x, grads = native_depthwise.backward(
        surroundings,
        to_contiguous(grad_out, dtype),
        to_contiguous(x, dtype),
        size,
        [to_contiguous(p, dtype) for p in parameters],
    )
    return grad_x.to(x.dtype), [grad.to(p.dtype) for grad, p in zip(grads, parameters, strict=True)]


@depthwise_backward_op.register_fake
def _(surroundings, grad_out, x, size, parameters):
    contiguous = {"memory_format": torch.contiguous_format}
    grad_x = x.new_empty(0) if surroundings == STEM else torch.empty_like(x, **contiguous)
    return grad_x, [torch.empty_like(p, **contiguous) for p in parameters]


def _setup_context(ctx, inputs, output):
    ctx.surroundings, x, ctx.size, parameters = inputs
    ctx.save_for_backward(x, *parameters)


def _backward(ctx, grad_out):
    x, *parameters = ctx.saved_tensors
    if ctx.surroundings == STEM and ctx.needs_input_grad[1]:
        raise RuntimeError("depthwise_stem computes no gradient of the image; detach it")
    grad_x, grads = depthwise_backward_op(ctx.surroundings, grad_out, x, ctx.size, parameters)
    return None, None if ctx.surroundings == STEM else grad_x, None, grads


depthwise_op.register_autograd(_backward, setup_context=_setup_context)

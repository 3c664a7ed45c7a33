"""Depthwise convolutions with their neighbouring layers, recomputed in the backward pass, one slab of planes at a time.

Only the input is saved, neither the stem's pointwise map nor the head's upsampled one, which have full resolution. The
three kinds are those of :mod:`..native_depthwise`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..native_depthwise import HEAD, PLAIN, STEM, out_shape
from . import interpolation, pieces
from .slabs import Slab, slabs_of


def forward(
    surroundings: int,
    x: Tensor,
    size: Sequence[int],
    parameters: Sequence[Tensor],
    product_dtype: torch.dtype,
    out_dtype: torch.dtype,
    in_triton: bool,
) -> Tensor:
    """Forward pass, for contiguous inputs.

    Args:
        surroundings: PLAIN, STEM or HEAD.
        x: Channels-last map; for a STEM the image, channels first.
        size: Spatial size of the output.
        parameters: Weight and bias of the convolution and, unless PLAIN, of the pointwise layer.
        product_dtype: Dtype of the convolution and the pointwise layer.
        out_dtype: Dtype of the output.
        in_triton: Use the Triton kernels instead of PyTorch's.
    """
    out = x.new_empty(out_shape(surroundings, x, size, parameters), dtype=out_dtype)
    if not (x.numel() and out.numel()):
        return out
    parameters = [p.to(product_dtype).contiguous() for p in parameters]
    for slab in slabs_of(x.shape[0], size, parameters[0].shape[0]):
        around = _around(surroundings, x, size, parameters, slab, product_dtype)
        result = pieces.depthwise(around, slab.beyond, *parameters[:2], in_triton)
        if surroundings == HEAD:
            out[slab.images, :, slab.first : slab.last] = F.linear(result, *parameters[2:]).movedim(-1, 1)
        else:
            out[slab.own] = result
    return out


def backward(
    surroundings: int,
    grad_out: Tensor,
    x: Tensor,
    size: Sequence[int],
    parameters: Sequence[Tensor],
    wide: torch.dtype,
    product_dtype: torch.dtype,
    in_triton: bool,
) -> tuple[Tensor, list[Tensor]]:
    """Gradients of x (empty for a STEM, whose image gets none) and, wide, of the parameters."""
    sums = [torch.zeros_like(p, dtype=wide, memory_format=torch.contiguous_format) for p in parameters]
    # Planes of a halo collect their gradient from two slabs; the head's map is small.
    grad_x = (
        torch.zeros_like(x, dtype=wide if surroundings == HEAD else None) if surroundings != STEM else x.new_empty(0)
    )
    if not (x.numel() and grad_out.numel()):
        return grad_x, sums
    parameters = [p.to(product_dtype).contiguous() for p in parameters]
    for slab in slabs_of(x.shape[0], size, parameters[0].shape[0]):
        around = _around(surroundings, x, size, parameters, slab, product_dtype)
        if surroundings == HEAD:
            grad = grad_out[slab.images, :, slab.first : slab.last].movedim(1, -1).to(product_dtype).contiguous()
            convolved = pieces.depthwise(around, slab.beyond, *parameters[:2], in_triton)
            sums[3] += pieces.column_sums(grad, wide)
            sums[2] += pieces.weight_gradient(grad, convolved, wide)
            grad = grad @ parameters[2]
            del convolved
        else:
            grad = grad_out[slab.own].to(product_dtype).contiguous()
        grad, *grads = pieces.depthwise_backward(grad, around, slab.beyond, parameters[0], wide, in_triton)
        del around
        for total, part in zip(sums, grads, strict=False):
            total += part
        if surroundings == PLAIN:
            grad_x[slab.halo] += grad.to(grad_x.dtype)
        elif surroundings == HEAD:
            interpolation.add_gradient_of_planes(grad, grad_x[slab.images], size, slab.halo[1])
        else:
            sums[3] += pieces.column_sums(grad, wide)
            image = x[(slab.images, slice(None), slab.halo[1])].movedim(1, -1).to(product_dtype)
            sums[2] += pieces.weight_gradient(grad, image, wide)
    return grad_x, sums


def _around(
    surroundings: int, x: Tensor, size: Sequence[int], parameters: Sequence[Tensor], slab: Slab, dtype: torch.dtype
) -> Tensor:
    """What a slab's convolution reads, with its halo."""
    if surroundings == PLAIN:
        return x[slab.halo].to(dtype).contiguous()
    if surroundings == STEM:
        image = x[(slab.images, slice(None), slab.halo[1])]
        return F.linear(image.movedim(1, -1).to(dtype), *parameters[2:]).contiguous()
    return interpolation.upsample_planes(x[slab.images].to(dtype), size, slab.halo[1])

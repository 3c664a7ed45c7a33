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
from .parameters import Gradients, in_dtypes
from .slabs import Slab, slabs_of

_NAMES = ("weight", "bias", "point_weight", "point_bias")


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
    inputs = _Inputs(surroundings, x, size, parameters, product_dtype)
    weight, bias, *point = inputs.parameters
    for slab in slabs_of(x.shape[0], size, weight.shape[0]):
        around = inputs.around(slab)
        if surroundings == HEAD:
            convolved = pieces.depthwise(around, slab.beyond, weight, bias, in_triton)
            out[slab.images, :, slab.first : slab.last] = F.linear(convolved, *point).movedim(-1, 1)
        else:
            pieces.depthwise(around, slab.beyond, weight, bias, in_triton, out[slab.own])
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
    # Planes of a halo collect their gradient from two slabs; the head's map is small.
    grad_x = (
        torch.zeros_like(x, dtype=wide if surroundings == HEAD else None) if surroundings != STEM else x.new_empty((0,))
    )
    gradients = Gradients(dict(zip(_NAMES, parameters, strict=False)), wide)
    if not (x.numel() and grad_out.numel()):
        return grad_x, gradients.sums()
    inputs = _Inputs(surroundings, x, size, parameters, product_dtype)
    weight, bias, *point = inputs.parameters
    for slab in slabs_of(x.shape[0], size, weight.shape[0]):
        around = inputs.around(slab)
        if surroundings == HEAD:
            grad = grad_out[slab.images, :, slab.first : slab.last].movedim(1, -1).to(product_dtype).contiguous()
            convolved = pieces.depthwise(around, slab.beyond, weight, bias, in_triton)
            gradients.add(point_weight=pieces.weight_gradient(grad, convolved))
            gradients.add(point_bias=pieces.column_sums(grad, wide))
            grad = grad @ point[0]
            del convolved
        else:
            grad = grad_out[slab.own].to(product_dtype).contiguous()
        grad, grad_weight, grad_bias = pieces.depthwise_backward(grad, around, slab.beyond, weight, wide, in_triton)
        gradients.add(weight=grad_weight, bias=grad_bias)
        del around
        if surroundings == PLAIN:
            grad_x[slab.halo].add_(grad)
        elif surroundings == HEAD:
            interpolation.add_gradient_of_planes(grad, grad_x[slab.images], slab.halo[1], inputs.matrices)
        else:
            image = x[(slab.images, slice(None), slab.halo[1])].movedim(1, -1).to(product_dtype)
            gradients.add(point_weight=pieces.weight_gradient(grad, image), point_bias=pieces.column_sums(grad, wide))
        gradients.end_slab()
    return grad_x, gradients.sums()


class _Inputs:
    """What the convolution of a slab reads, and with which parameters, in the products' dtype."""

    def __init__(
        self, surroundings: int, x: Tensor, size: Sequence[int], parameters: Sequence[Tensor], dtype: torch.dtype
    ) -> None:
        self.parameters = in_dtypes([p.contiguous() for p in parameters], [dtype] * len(parameters))
        self._surroundings, self._x, self._size, self._dtype = surroundings, x, size, dtype
        if surroundings == HEAD:
            self.matrices = interpolation.matrices(x.shape[1:-1], size, x.new_empty((0,), dtype=dtype))

    def around(self, slab: Slab) -> Tensor:
        """The slab with its halo."""
        if self._surroundings == PLAIN:
            return self._x[slab.halo].to(self._dtype).contiguous()
        if self._surroundings == STEM:
            image = self._x[(slab.images, slice(None), slab.halo[1])]
            return F.linear(image.movedim(1, -1).to(self._dtype), *self.parameters[2:]).contiguous()
        return interpolation.upsample_planes(self._x[slab.images], self._size, slab.halo[1], self.matrices[0])

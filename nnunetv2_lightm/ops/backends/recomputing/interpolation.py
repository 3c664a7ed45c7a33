"""Linear interpolation, corners not aligned, of channels-last maps, with a deterministic backward pass.

PyTorch's backward pass on CUDA adds atomically, in no fixed order, and under autocast runs entirely in float32. Here
the gradient is gathered: along each axis it is a product with the transposed interpolation matrix. Most of that matrix
is zero, but a GPU multiplies with it faster than it reads the map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def upsample(x: Tensor, size: Sequence[int]) -> Tensor:
    """(images, *spatial, channels) -> (images, *size, channels), in x's dtype."""
    mode = {4: "bilinear", 5: "trilinear"}[x.ndim]
    return F.interpolate(x.movedim(-1, 1), size=tuple(size), mode=mode).movedim(1, -1).contiguous()


def upsample_backward(grad: Tensor, spatial: Sequence[int], wide: torch.dtype) -> Tensor:
    """Gradient of a map of this spatial size."""
    for axis in reversed(range(1, grad.ndim - 1)):
        grad = _gathered(grad, matrix(spatial[axis - 1], grad.shape[axis], wide, grad), axis)
    return grad


def upsample_planes(x: Tensor, size: Sequence[int], planes: slice) -> Tensor:
    """Some planes of :func:`upsample`: along the first axis where the map is small, then within the planes."""
    low, high, weight = _sources(x.shape[1], size[0], x)
    low, high, weight = (t[planes] for t in (low, high, weight))
    shape = (-1, *(1,) * (x.ndim - 2))
    # As PyTorch does in half precision: compute in float32, round once.
    below, above = x[:, low].to(weight.dtype), x[:, high].to(weight.dtype)
    mixed = torch.lerp(below, above, weight.view(shape)).to(x.dtype)
    if x.ndim == 4:
        return upsample(mixed, (mixed.shape[1], *size[1:]))
    return upsample(mixed.flatten(0, 1), size[1:]).unflatten(0, mixed.shape[:2])


def add_gradient_of_planes(grad: Tensor, grad_x: Tensor, size: Sequence[int], planes: slice) -> None:
    """Add the contribution of some planes of the large map to grad_x, the wide gradient of the whole small map."""
    spatial = grad_x.shape[1:-1]
    for axis in reversed(range(2, grad.ndim - 1)):
        grad = _gathered(grad, matrix(spatial[axis - 1], size[axis - 1], grad_x.dtype, grad), axis)
    along = matrix(spatial[0], size[0], grad_x.dtype, grad)[planes]
    grad_x += _gathered(grad, along, 1)


def matrix(small: int, large: int, wide: torch.dtype, like: Tensor) -> Tensor:
    """The interpolation along an axis, (large, small), in the dtype and on the device of ``like``."""
    low, high, weight = _sources(small, large, like.to(wide) if like.numel() == 0 else like.new_empty(0, dtype=wide))
    rows = torch.arange(large, device=like.device)
    result = torch.zeros(large, small, dtype=weight.dtype, device=like.device)
    result[rows, low] = 1 - weight
    result[rows, high] += weight  # at the border both are the same voxel, which gets all the weight
    return result.to(like.dtype)


def _sources(small: int, large: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The two voxels between which each new one lies, and the weight of the second, as in PyTorch's UpSample.h."""
    wide = torch.float64 if like.dtype == torch.float64 else torch.float32
    centres = torch.arange(large, dtype=wide, device=like.device) + 0.5
    places = (centres * (small / large) - 0.5).clamp_(min=0)
    low = places.long().clamp_(max=small - 1)
    return low, (low + 1).clamp_(max=small - 1), places - low


def _gathered(grad: Tensor, along: Tensor, axis: int) -> Tensor:
    """Product with the transposed matrix along an axis."""
    rows = grad.flatten(axis + 1)
    return (along.t() @ rows).unflatten(-1, grad.shape[axis + 1 :])

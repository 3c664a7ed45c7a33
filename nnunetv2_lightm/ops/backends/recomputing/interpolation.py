"""Linear interpolation, corners not aligned, of channels-last maps, with a deterministic backward pass.

PyTorch's backward pass on CUDA adds atomically, in no fixed order, and under autocast runs entirely in float32. Here
the gradient is gathered: along each axis it is a product with the transposed interpolation matrix. Most of that matrix
is zero, but a GPU multiplies with it faster than it reads the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor

import torch
import torch.nn.functional as F
from torch import Tensor


def upsample(x: Tensor, size: Sequence[int]) -> Tensor:
    """(images, *spatial, channels) -> (images, *size, channels), in x's dtype."""
    mode = {4: "bilinear", 5: "trilinear"}[x.ndim]
    return F.interpolate(x.movedim(-1, 1), size=tuple(size), mode=mode).movedim(1, -1).contiguous()


def upsample_backward(grad: Tensor, spatial: Sequence[int]) -> Tensor:
    """Gradient of a map of this spatial size."""
    for axis in reversed(range(1, grad.ndim - 1)):
        grad = _product(matrix(spatial[axis - 1], grad.shape[axis], grad).t(), grad, axis)
    return grad


def upsample_planes(x: Tensor, size: Sequence[int], planes: slice, along: Tensor) -> Tensor:
    """Some planes of :func:`upsample`: along the first axis where the map is small, then within the planes.

    Args:
        x: The whole map.
        size: Size of the whole large map.
        planes: The planes wanted.
        along: :func:`matrix` of the first axis, in the dtype of the result.
    """
    read = _planes_read(planes, *along.shape[::-1])
    mixed = _product(along[planes, read], x[:, read].to(along.dtype), 1)
    if x.ndim == 4:
        return upsample(mixed, (mixed.shape[1], *size[1:]))
    return upsample(mixed.flatten(0, 1), size[1:]).unflatten(0, mixed.shape[:2])


def add_gradient_of_planes(grad: Tensor, grad_x: Tensor, planes: slice, matrices: Sequence[Tensor]) -> None:
    """Add the contribution of some planes of the large map to grad_x, the wide gradient of the whole small map.

    ``matrices``: :func:`matrix` of each axis, in grad's dtype.
    """
    for axis in reversed(range(2, grad.ndim - 1)):
        grad = _product(matrices[axis - 1].t(), grad, axis)
    read = _planes_read(planes, *matrices[0].shape[::-1])
    grad_x[:, read].add_(_product(matrices[0][planes, read].t(), grad, 1))


def matrices(spatial: Sequence[int], size: Sequence[int], like: Tensor) -> list[Tensor]:
    """:func:`matrix` of each axis."""
    return [matrix(small, large, like) for small, large in zip(spatial, size, strict=True)]


def matrix(small: int, large: int, like: Tensor) -> Tensor:
    """The interpolation along an axis, (large, small), in the dtype and on the device of ``like``: two voxels share the
    weight of each new one by their distance from it, as in PyTorch's UpSample.h."""
    wide = torch.promote_types(like.dtype, torch.float32)
    places = torch.arange(large, dtype=wide, device=like.device).add_(0.5).mul_(small / large).sub_(0.5)
    distances = torch.arange(small, dtype=wide, device=like.device) - places.clamp_(0, small - 1)[:, None]
    return distances.abs_().neg_().add_(1).clamp_(min=0).to(like.dtype)


def _planes_read(planes: slice, small: int, large: int) -> slice:
    """The planes of the small map between which these of the large one lie, and what rounding may add: others are not
    read, so that neither are their infinities."""
    first, last = ((plane + 0.5) * small / large - 0.5 for plane in (planes.start, planes.stop - 1))
    return slice(max(0, min(floor(first - 1e-3), small - 1)), max(1, min(ceil(last + 1e-3) + 1, small)))


def _product(along: Tensor, x: Tensor, axis: int) -> Tensor:
    """Product with a matrix along an axis."""
    return (along @ x.flatten(axis + 1)).unflatten(-1, x.shape[axis + 1 :])

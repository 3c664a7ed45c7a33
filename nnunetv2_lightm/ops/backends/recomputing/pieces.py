"""The parts of the recomputing layers: depthwise convolution, pooling and products, with their gradients.

Maps are channels-last, (images, *spatial, channels). "Wide" means float32, or float64 for float64 inputs; only slabs
are wide here, never whole maps.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from ..triton_kernels import depthwise as triton_depthwise
from ..triton_kernels import pooling as triton_pooling


def depthwise_silu(
    x: Tensor, beyond: tuple[int, int], weight: Tensor, bias: Tensor, in_triton: bool, keep: bool
) -> tuple[Tensor | None, Tensor]:
    """The result of :func:`depthwise`, None unless ``keep``, and its SiLU."""
    if in_triton:
        return triton_depthwise.convolve_silu(x, beyond, weight, bias, keep)
    convolved = depthwise(x, beyond, weight, bias, in_triton)
    return convolved if keep else None, F.silu(convolved)


def depthwise(
    x: Tensor, beyond: tuple[int, int], weight: Tensor, bias: Tensor, in_triton: bool, out: Tensor | None = None
) -> Tensor:
    """Depthwise convolution, 3 taps on each axis, of a slab with its halo; the result has no halo.

    Args:
        x: Contiguous.
        beyond: Planes of zeros before and after it.
        weight: (channels, 1, 3, [3,] 3), of x's dtype.
        bias: (channels,).
        in_triton: Use the Triton kernel instead of PyTorch's.
        out: Receives the result; contiguous, of any floating dtype. None: a new map of x's dtype.
    """
    if in_triton:
        return triton_depthwise.convolve(x, beyond, weight, bias, out)
    dims = x.ndim - 2
    conv = {2: F.conv2d, 3: F.conv3d}[dims]
    x = _with_planes(x, beyond).movedim(-1, 1)
    with _without_tf32(x):
        convolved = conv(x, weight, bias, padding=(0, *(1,) * (dims - 1)), groups=x.shape[1]).movedim(1, -1)
    return convolved.contiguous() if out is None else out.copy_(convolved)


def depthwise_backward(
    grad: Tensor, x: Tensor, beyond: tuple[int, int], weight: Tensor, wide: torch.dtype, in_triton: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of :func:`depthwise`'s input, (the planes of x), weight and bias, the latter two wide."""
    if in_triton:
        return triton_depthwise.convolve_backward(grad, x, beyond, weight, wide)
    dims = x.ndim - 2
    x = _with_planes(x, beyond)
    with _without_tf32(x):
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad.movedim(-1, 1),
            x.movedim(-1, 1),
            weight,
            None,
            [1] * dims,
            [0, *[1] * (dims - 1)],
            [1] * dims,
            False,
            [0] * dims,
            x.shape[-1],
            (True, True, False),
        )
    grad_x = grad_x.movedim(1, -1)[:, beyond[0] : grad_x.shape[2] - beyond[1]]
    return grad_x.contiguous(), grad_weight.to(wide), column_sums(grad, wide)


@contextmanager
def _without_tf32(x: Tensor) -> Iterator[None]:
    """By default cuDNN rounds the inputs of a float32 convolution to 10 bits; within the context it does not."""
    cudnn = torch.backends.cudnn
    if not x.is_cuda or x.dtype != torch.float32:
        yield
        return
    if not hasattr(cudnn, "conv"):  # before PyTorch 2.9
        with cudnn.flags(cudnn.enabled, cudnn.benchmark, cudnn.benchmark_limit, cudnn.deterministic, allow_tf32=False):
            yield
        return
    # Not by the older flag: once a script has set the newer one, reading the older fails.
    before, cudnn.conv.fp32_precision = cudnn.conv.fp32_precision, "ieee"
    try:
        yield
    finally:
        cudnn.conv.fp32_precision = before


def _with_planes(x: Tensor, beyond: tuple[int, int]) -> Tensor:
    return F.pad(x, (0, 0) * (x.ndim - 2) + beyond) if any(beyond) else x


def max_pool(
    x: Tensor, window: Sequence[int], out: Tensor, place: Tensor | None = None, in_triton: bool = False
) -> None:
    """Max-pooling; among equal values the first counts, among NaN the last.

    Args:
        x: Contiguous.
        window: Size and stride of the window.
        out: Receives the result.
        place: Receives the index of each maximum in its window, uint8.
        in_triton: Use the Triton kernel instead of PyTorch's.
    """
    if in_triton:
        return triton_pooling.max_pool(x, window, out, place)
    best = at = None
    for index, part in enumerate(_places(x, window)):
        if best is None:
            best, at = part.clone(), torch.zeros(part.shape, dtype=torch.uint8, device=x.device)
            continue
        better = (part > best).logical_or_(part.isnan())
        best = torch.where(better, part, best)
        at.masked_fill_(better, index)
    out.copy_(best)
    if place is not None:
        place.copy_(at)


def max_pool_backward(
    grad: Tensor, place: Tensor, window: Sequence[int], shape: Sequence[int], dtype: torch.dtype, in_triton: bool
) -> Tensor:
    """Gradient of the pooling's input, of this shape and dtype."""
    covered = all(size % step == 0 for size, step in zip(shape[1:-1], window, strict=True))
    result = (grad.new_empty if covered else grad.new_zeros)(tuple(shape), dtype=dtype)
    if in_triton:
        triton_pooling.max_pool_backward(grad, place, window, result)
        return result
    for index, part in enumerate(_places(result, window)):
        part.copy_(grad.masked_fill(place != index, 0))
    return result


def _places(x: Tensor, window: Sequence[int]) -> Iterator[Tensor]:
    """Views of the first elements of all windows, of the second ones, and so on."""
    counts = [size // step for size, step in zip(x.shape[1:-1], window, strict=True)]
    for offsets in itertools.product(*map(range, window)):
        axes = zip(offsets, counts, window, strict=True)
        yield x[(slice(None), *(slice(o, o + count * step, step) for o, count, step in axes))]


def column_sums(x: Tensor, wide: torch.dtype) -> Tensor:
    """Sums over all but the last axis, wide."""
    return x.flatten(0, -2).sum(0, dtype=wide)


def weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """Gradient of the weight of ``x @ weight.T``."""
    return grad.flatten(0, -2).t() @ x.flatten(0, -2)


def add_product(add_to: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Add ``x @ weight`` to a contiguous tensor, which is returned."""
    add_to.view(-1, weight.shape[1]).addmm_(x.flatten(0, -2), weight)
    return add_to

"""Launches of the depthwise convolution's kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from ..native_library import insert_height
from .launch import launch, power_of_2, type_of

# Channels and elements of a program: two elements for each thread of four warps.
BLOCK_CHANNELS = 64
TILE_ELEMENTS = 256
WARPS = 4
# Output planes that a program walks through; two more are read.
RUN = 16
# Rows of a program that sums the weights' gradients, and rows x planes: what it writes must be little next to the map.
SUMMED_ROWS = 4
SUMMED = 64


def convolve(x: Tensor, beyond: tuple[int, int], weight: Tensor, bias: Tensor, out: Tensor | None) -> Tensor:
    """As :func:`..recomputing.pieces.depthwise`."""
    out = _output(x, beyond) if out is None else out
    _convolve(x, weight, bias, out, None, shift=beyond[0], flip=False)
    return out


def convolve_silu(
    x: Tensor, beyond: tuple[int, int], weight: Tensor, bias: Tensor, keep: bool
) -> tuple[Tensor | None, Tensor]:
    """As :func:`..recomputing.pieces.depthwise_silu`."""
    out, activated = _output(x, beyond) if keep else None, _output(x, beyond)
    _convolve(x, weight, bias, out, activated, shift=beyond[0], flip=False)
    return out, activated


def _output(x: Tensor, beyond: tuple[int, int]) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[1] + sum(beyond) - 2, *x.shape[2:]))


def convolve_backward(
    grad: Tensor, x: Tensor, beyond: tuple[int, int], weight: Tensor, wide: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of :func:`convolve`'s x, in grad's dtype, weight and bias, wide."""
    grad_x = torch.empty_like(x, dtype=grad.dtype)
    _convolve(grad, weight, None, grad_x, None, shift=2 - beyond[0], flip=True)
    return grad_x, *_weight_gradient(grad, x, beyond[0], weight, wide)


def _convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor | None, activated: Tensor | None, shift: int, flip: bool
) -> None:
    from . import depthwise_kernels

    written = activated if out is None else out
    if not written.numel():
        return
    sizes = _Sizes(x, written, 1, RUN)
    launch(
        depthwise_kernels.convolve,
        sizes.grid,
        x,
        weight,
        bias,
        out,
        activated,
        **sizes.arguments,
        shift=shift,
        TAPS_Y=1 if x.ndim == 4 else 3,
        FLIP=flip,
        TYPE=sizes.type,
        num_warps=WARPS,
    )


def _weight_gradient(grad: Tensor, x: Tensor, shift: int, weight: Tensor, wide: torch.dtype) -> tuple[Tensor, Tensor]:
    from . import depthwise_kernels

    if not grad.numel():
        return torch.zeros_like(weight, dtype=wide), grad.new_zeros(grad.shape[-1], dtype=wide)
    taps_y, rows = (1, 1) if x.ndim == 4 else (3, min(SUMMED_ROWS, x.shape[2]))
    sizes = _Sizes(x, grad, rows, SUMMED // rows)
    parts = x.new_empty((sizes.grid[0] * sizes.grid[1], 9 * taps_y + 1, x.shape[-1]), dtype=wide)
    launch(
        depthwise_kernels.weight_gradient,
        sizes.grid,
        grad,
        x,
        parts,
        **sizes.arguments,
        shift=shift,
        TAPS_Y=taps_y,
        ROWS=rows,
        TYPE=sizes.type,
        num_warps=WARPS,
    )
    sums = parts.sum(0)
    return sums[:-1].t().reshape(weight.shape), sums[-1]


class _Sizes:
    """Grid and sizes of a launch that writes or traverses ``out`` and reads the neighbourhood in ``x``; a program has
    ``rows_each`` rows and ``run`` planes."""

    def __init__(self, x: Tensor, out: Tensor, rows_each: int, run: int) -> None:
        images, out_planes, channels = out.shape[0], out.shape[1], out.shape[-1]
        _, rows, width = insert_height(out.shape[1:-1])
        block_c = min(BLOCK_CHANNELS, power_of_2(channels))
        block_x = min(power_of_2(width), max(1, TILE_ELEMENTS // block_c))
        runs = -(-out_planes // run)
        self.grid = (images * runs * -(-rows // rows_each), -(-width // block_x), -(-channels // block_c))
        self.type = type_of(torch.promote_types(x.dtype, torch.float32))
        self.arguments = {"planes": x.shape[1], "out_planes": out_planes, "rows": rows, "width": width}
        self.arguments |= {"channels": channels, "runs": runs, "RUN": run, "BLOCK_X": block_x, "BLOCK_C": block_c}

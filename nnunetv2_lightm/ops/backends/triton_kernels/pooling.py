"""Launches of the max-pooling's kernels; all maps are contiguous."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..native_library import insert_height
from .launch import launch, power_of_2, type_of

BLOCK_CHANNELS = 64
TILE_ELEMENTS = 512
WARPS = 4


def max_pool(x: Tensor, window: Sequence[int], out: Tensor, place: Tensor | None) -> None:
    """As :func:`..recomputing.pieces.max_pool`."""
    from .pooling_kernels import max_pool as kernel

    if not out.numel():
        return
    grid, arguments = _sizes(x, out, window)
    launch(kernel, grid, x, out, place, **arguments)


def max_pool_backward(grad: Tensor, place: Tensor, window: Sequence[int], grad_x: Tensor) -> None:
    """Write the gradient of the pooling's input wherever a window lies."""
    from .pooling_kernels import max_pool_backward as kernel

    if not grad.numel():
        return
    grid, arguments = _sizes(grad_x, grad, window)
    launch(kernel, grid, grad, place, grad_x, **arguments)


def _sizes(x: Tensor, out: Tensor, window: Sequence[int]) -> tuple[tuple[int, int], dict[str, Any]]:
    """Grid and sizes of a launch."""
    channels = x.shape[-1]
    voxels = out.numel() // channels
    block_c = min(BLOCK_CHANNELS, power_of_2(channels))
    block_r = min(power_of_2(voxels), max(1, TILE_ELEMENTS // block_c))
    names = ("planes", "rows", "width")
    arguments = {"voxels": voxels, "channels": channels}
    arguments |= {f"out_{name}": size for name, size in zip(names, insert_height(out.shape[1:-1]), strict=True)}
    arguments |= dict(zip(names, insert_height(x.shape[1:-1]), strict=True))
    arguments |= dict(zip(("WZ", "WY", "WX"), insert_height(window), strict=True))
    arguments |= {"TYPE": type_of(torch.promote_types(x.dtype, torch.float32))}
    arguments |= {"BLOCK_R": block_r, "BLOCK_C": block_c, "num_warps": WARPS}
    return (-(-voxels // block_r), -(-channels // block_c)), arguments

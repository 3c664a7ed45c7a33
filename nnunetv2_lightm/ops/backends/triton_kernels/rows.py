"""Launches of the kernels that work on voxels; :mod:`..recomputing.rows` says what each function does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .launch import launch, power_of_2, type_of

EPSILON = 1e-5  # of nn.LayerNorm
WARPS = 4
# Elements of a tile, 16 for each thread; and tiles per program.
TILE_ELEMENTS = 2048
STEPS = 8


def norm(x: Tensor, weight: Tensor, bias: Tensor, out_dtype: torch.dtype) -> Tensor:
    return _norm(x, None, None, weight, bias, None, out_dtype)


def gated_norm(x: Tensor, weight: Tensor, bias: Tensor, gate: Tensor) -> Tensor:
    return _norm(x, None, None, weight, bias, gate, gate.dtype)


def residual_norm(add: Tensor, x: Tensor, scale: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return _norm(x, add, scale, weight, bias, None, add.dtype)


def norm_backward(grad: Tensor, x: Tensor, weight: Tensor, grad_x: Tensor) -> tuple[Tensor, Tensor]:
    parts = _norm_backward(grad, x, None, None, weight, grad_x, None)
    return parts[0], parts[1]


def residual_norm_backward(
    grad: Tensor, add: Tensor, x: Tensor, scale: Tensor, weight: Tensor, bias: Tensor, grad_x: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad_add = torch.empty_like(add)
    parts = _norm_backward(grad, x, add, scale, weight, grad_x, grad_add)
    return grad_add, parts[0], parts[1], parts[2]


def gated_norm_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, gate: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from .row_kernels import gated_norm_backward as kernel

    grad_x, grad_gate = torch.empty_like(x), torch.empty_like(gate)
    grid, arguments = _sizes(x, weight)
    parts = weight.new_empty((2, *grid, x.shape[-1]))
    launch(kernel, grid, grad, x, weight, bias, gate, grad_x, grad_gate, parts, **arguments)
    sums = parts.sum(1)
    return grad_x, grad_gate, sums[0], sums[1]


def _norm(
    x: Tensor,
    add: Tensor | None,
    scale: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    gate: Tensor | None,
    out_dtype: torch.dtype,
) -> Tensor:
    from .row_kernels import norm as kernel

    out = torch.empty_like(x, dtype=out_dtype)
    grid, arguments = _sizes(x, weight)
    launch(kernel, grid, x, add, scale, weight, bias, gate, out, **arguments)
    return out


def _norm_backward(
    grad: Tensor,
    x: Tensor,
    add: Tensor | None,
    scale: Tensor | None,
    weight: Tensor,
    grad_x: Tensor,
    grad_add: Tensor | None,
) -> Tensor:
    from .row_kernels import norm_backward as kernel

    grid, arguments = _sizes(x, weight)
    parts = weight.new_empty((2 if add is None else 3, *grid, x.shape[-1]))
    launch(kernel, grid, grad, x, add, scale, weight, grad_x, grad_add, parts, **arguments)
    return parts.sum(1)


def _sizes(x: Tensor, weight: Tensor) -> tuple[tuple[int], dict[str, Any]]:
    """Grid and sizes of a launch; all maps are contiguous."""
    channels = x.shape[-1]
    rows = x.numel() // channels
    block_c = power_of_2(channels)
    block_r = min(power_of_2(rows), max(1, TILE_ELEMENTS // block_c))
    arguments = {"rows": rows, "channels": channels, "EPSILON": EPSILON, "TYPE": type_of(weight.dtype), "STEPS": STEPS}
    return (-(-rows // (block_r * STEPS)),), arguments | {"BLOCK_R": block_r, "BLOCK_C": block_c, "num_warps": WARPS}

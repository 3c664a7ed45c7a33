"""How kernels are launched, and with which sizes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Tensor | int | None, **named: Any) -> None:
    """Launch a kernel on the device of the first tensor; the one place that does."""
    with torch.cuda.device_of(arguments[0]):
        kernel[grid](*arguments, **named)


def type_of(dtype: torch.dtype) -> Any:
    """Triton's name of float32 or float64."""
    import triton.language as tl

    return {torch.float32: tl.float32, torch.float64: tl.float64}[dtype]


def power_of_2(size: int) -> int:
    """The smallest power of 2 that is at least the size."""
    return 1 << max(0, size - 1).bit_length()

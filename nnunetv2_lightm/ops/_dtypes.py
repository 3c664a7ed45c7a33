"""The dtypes in which the operators take their operands."""

from __future__ import annotations

import torch
from torch import Tensor

from .reference import compute_dtype


def autocast_dtype(*tensors: Tensor) -> torch.dtype | None:
    """The dtype in which autocast would multiply these tensors; None: without autocast."""
    device = tensors[0].device.type
    if compute_dtype(*tensors) == torch.float64 or not torch.amp.is_autocast_available(device):
        return None
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def to_contiguous(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor as the compiled operators take it."""
    return tensor.to(dtype).contiguous()

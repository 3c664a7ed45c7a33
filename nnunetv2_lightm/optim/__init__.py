"""Optimisers that PyTorch does not have, or not in every version that nnU-Net runs with."""

from .muon import MuonAdamW
from .polar import FIVE_STEPS, JORDAN, THREE_STEPS, fast_dtype, polar_factor

__all__ = ["FIVE_STEPS", "JORDAN", "THREE_STEPS", "MuonAdamW", "fast_dtype", "polar_factor"]

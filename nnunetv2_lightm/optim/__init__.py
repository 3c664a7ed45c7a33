"""Optimisers that PyTorch does not have, or not in every version that nnU-Net runs with."""

from .muon import MuonAdamW
from .polar import JORDAN, POLAR_EXPRESS, fast_dtype, polar_factor

__all__ = ["JORDAN", "POLAR_EXPRESS", "MuonAdamW", "fast_dtype", "polar_factor"]

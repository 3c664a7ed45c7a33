"""Muon and AdamW as one optimiser, which PyTorch does not have."""

from .muon import MuonAdamW
from .polar import THREE_STEPS, fast_dtype, polar_factor

__all__ = ["THREE_STEPS", "MuonAdamW", "fast_dtype", "polar_factor"]

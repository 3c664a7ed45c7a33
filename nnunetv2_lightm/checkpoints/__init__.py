"""Checkpoint files: which nnU-Net writes, whether one is undamaged, and how one of unknown origin is loaded."""

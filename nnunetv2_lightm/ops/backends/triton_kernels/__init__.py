"""Kernels in Triton and what launches them; imported where Triton is there."""

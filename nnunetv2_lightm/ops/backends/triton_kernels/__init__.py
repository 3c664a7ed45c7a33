"""Triton kernels and their launchers; imported only if Triton is installed."""

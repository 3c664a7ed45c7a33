"""Layers that recompute in the backward pass instead of saving, a slab of the image at a time, on any device.

What the compiled layers are on a CPU, put together from PyTorch's operators, the selective scan's backends and, on
CUDA, the kernels in :mod:`..triton_kernels`. Plain functions of tensors: :mod:`nnunetv2_lightm.ops` registers them as
operators, in which neither autograd nor autocast is active.
"""

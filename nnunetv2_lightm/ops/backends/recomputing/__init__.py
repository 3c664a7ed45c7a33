"""Layers that recompute in the backward pass instead of saving, one slab of the image at a time, on any device.

They do what the compiled layers do on a CPU, but are composed of PyTorch's operators, the selective scan's backends
and, on CUDA, the kernels in :mod:`..triton_kernels`. They are plain functions of tensors: :mod:`nnunetv2_lightm.ops`
registers them as operators, inside which neither autograd nor autocast is active.
"""

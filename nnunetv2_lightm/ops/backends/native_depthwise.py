"""Depthwise convolutions on the CPU in compiled C++ (``ops/csrc/depthwise*``), fused with neighbouring layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import cpu_native, native_library
from .native_interface import CHANNEL_MULTIPLE, SURROUNDINGS, DepthwiseProblem
from .native_library import insert_height

PLAIN, STEM, HEAD = range(len(SURROUNDINGS))


def not_supported_reason(device_type: str, channels: int) -> str | None:
    """Why this code cannot run a convolution with that many channels on the device; None: it can."""
    if channels % CHANNEL_MULTIPLE:
        return f"the channels must be a multiple of {CHANNEL_MULTIPLE}"
    return cpu_native.not_supported_reason(device_type)


def out_shape(surroundings: int, x: Tensor, size: Sequence[int], parameters: Sequence[Tensor]) -> tuple[int, ...]:
    """Shape of the output: channels-last, or channels-first for a HEAD."""
    if surroundings == HEAD:
        return (x.shape[0], parameters[2].shape[0], *size)
    return (x.shape[0], *size, parameters[0].shape[0])


def forward(surroundings: int, x: Tensor, size: Sequence[int], parameters: Sequence[Tensor]) -> Tensor:
    """Contiguous inputs of one dtype, float32 or float64; parameters: weight and bias of the convolution and, unless
    PLAIN, of the pointwise layer; size: spatial, of the output."""
    out = x.new_empty(out_shape(surroundings, x, size, parameters))
    if x.numel() and out.numel():
        problem = _problem(surroundings, x, size, parameters)
        problem.out = out.data_ptr()
        native_library.run(problem, False, f"depthwise convolution of {tuple(x.shape)}")
    return out


def backward(
    surroundings: int, grad_out: Tensor, x: Tensor, size: Sequence[int], parameters: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Gradients of x (empty for a STEM, whose image gets none) and of the parameters."""
    grad_x = torch.empty_like(x) if surroundings != STEM else x.new_empty((0,))
    grads = [torch.empty_like(parameter) for parameter in parameters]
    if x.numel() == 0 or grad_out.numel() == 0:
        return grad_x.zero_(), [grad.zero_() for grad in grads]
    problem = _problem(surroundings, x, size, parameters)
    problem.grad_out, problem.grad_in = grad_out.data_ptr(), grad_x.data_ptr() or None
    names = ("grad_conv_weight", "grad_conv_bias", "grad_point_weight", "grad_point_bias")
    for name, grad in zip(names, grads, strict=False):
        setattr(problem, name, grad.data_ptr())
    native_library.run(problem, True, f"depthwise convolution of {tuple(x.shape)}")
    return grad_x, grads


def _problem(surroundings: int, x: Tensor, size: Sequence[int], parameters: Sequence[Tensor]) -> DepthwiseProblem:
    map_size = insert_height(x.shape[1:-1]) if surroundings == HEAD else (0, 0, 0)
    points = {PLAIN: 0, STEM: x.shape[1], HEAD: parameters[-1].shape[0]}[surroundings]
    kernel_height = 3 if len(size) == 3 else 1
    sizes = (x.shape[0], *insert_height(size), parameters[0].shape[0], kernel_height)
    problem = DepthwiseProblem(surroundings, *sizes, x.dtype == torch.float64, points, *map_size)
    for name, parameter in zip(("conv_weight", "conv_bias", "point_weight", "point_bias"), parameters, strict=False):
        setattr(problem, name, parameter.data_ptr())
    problem.in_ = x.data_ptr()
    return problem

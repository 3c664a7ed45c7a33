"""The RVM layer on the CPU in compiled C++ (``ops/csrc/rvm*``): between its input and its output nothing leaves the
cache, and only the scan's checkpoints and the pooling's argmax are kept for the backward pass."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from . import cpu_native, native_library
from .native_interface import CHANNEL_MULTIPLE, RVM_PARAMETERS, RvmProblem
from .native_library import insert_height


def layer_not_supported_reason(device_type: str, channels: int, inner: int, out_channels: int) -> str | None:
    """Why this code cannot run an RVM layer with these numbers of channels on the device; None: it can."""
    if any(count % CHANNEL_MULTIPLE for count in (channels, inner, out_channels)):
        return f"channels, inner channels and output channels must be multiples of {CHANNEL_MULTIPLE}"
    return cpu_native.not_supported_reason(device_type)


def checkpoint_count(spatial: Sequence[int], parameters: Sequence[Tensor]) -> int:
    """Number of checkpointed states per entry of the batch, for a map of this size."""
    if any(isinstance(size, torch.SymInt) for size in spatial):
        return _symbolic_checkpoint_count(spatial, dict(zip(RVM_PARAMETERS, parameters, strict=True))["A"].shape[0])
    # The batch is not looked at, so it may be a symbol (torch.export).
    problem = _problem((1, *spatial, parameters[0].shape[0]), parameters, None, torch.float32)
    return native_library.library().nnunetv2_lightm_rvm_checkpoints(ctypes.byref(problem))


def _symbolic_checkpoint_count(spatial: Sequence[int | torch.SymInt], inner: int) -> torch.SymInt:
    """The same for symbolic sizes (torch.export): ``Slabs`` of csrc/rvm_layer.hpp, for training."""
    rows, width = math.prod(spatial[:-1]), spatial[-1]
    tokens = min(max(2**15 // inner, 256), 4096)
    slab_rows = torch.sym_max(1, torch.sym_min(tokens // width, rows))
    chunks = -(-(slab_rows * width) // cpu_native.chunk_length())
    return -(-rows // slab_rows) * chunks


def forward(
    x: Tensor, parameters: Sequence[Tensor], pool: Sequence[int], keep_checkpoints: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Contiguous inputs of one dtype, float32 or float64; parameters in the order of ``RVM_PARAMETERS``.

    Returns: the output (batch, *pooled, out_channels); checkpoints (batch, chunks, d_state, d_inner) and argmax, uint8,
        the index of each maximum in its pooling window, both empty if they are not kept.
    """
    named = dict(zip(RVM_PARAMETERS, parameters, strict=True))
    pooled = [size // stride for size, stride in zip(x.shape[1:-1], pool, strict=True)]
    out = x.new_empty((x.shape[0], *pooled, named["projection_weight"].shape[0]))
    d_inner, d_state = named["A"].shape
    chunks = checkpoint_count(x.shape[1:-1], parameters)
    checkpoints = x.new_empty((x.shape[0], chunks, d_state, d_inner) if keep_checkpoints else (0,))
    argmax = torch.empty(out.shape if keep_checkpoints and max(pool) > 1 else 0, dtype=torch.uint8)
    if x.numel() and out.numel():
        problem = _problem(x.shape, parameters, pool, x.dtype)
        problem.x, problem.out = x.data_ptr(), out.data_ptr()
        problem.checkpoints = checkpoints.data_ptr() or None
        problem.argmax = argmax.data_ptr() or None
        native_library.run(problem, False, f"RVM layer on {tuple(x.shape)}")
    return out, checkpoints, argmax


def backward(
    grad_out: Tensor,
    checkpoints: Tensor,
    argmax: Tensor,
    x: Tensor,
    parameters: Sequence[Tensor],
    pool: Sequence[int],
) -> tuple[Tensor, list[Tensor]]:
    """Gradients of x and of the parameters, from what ``forward`` has kept."""
    grad_x = torch.empty_like(x)
    grads = [torch.empty_like(parameter) for parameter in parameters]
    if x.numel() == 0 or grad_out.numel() == 0:
        return grad_x.zero_(), [grad.zero_() for grad in grads]
    problem = _problem(x.shape, parameters, pool, x.dtype)
    problem.x, problem.checkpoints, problem.argmax = x.data_ptr(), checkpoints.data_ptr(), argmax.data_ptr() or None
    problem.grad_out, problem.grad_x = grad_out.data_ptr(), grad_x.data_ptr()
    problem.gradient = type(problem.gradient)(*(grad.data_ptr() for grad in grads))
    native_library.run(problem, True, f"RVM layer on {tuple(x.shape)}")
    return grad_x, grads


def _problem(
    x_shape: Sequence[int], parameters: Sequence[Tensor], pool: Sequence[int] | None, dtype: torch.dtype
) -> RvmProblem:
    named = dict(zip(RVM_PARAMETERS, parameters, strict=True))
    batch, *spatial, channels = x_shape
    d_inner, d_state = named["A"].shape
    rank, kernel_height = named["dt_weight"].shape[1], 3 if len(spatial) == 3 else 1
    sizes = (batch, *insert_height(spatial), channels, d_inner, named["projection_weight"].shape[0], d_state, rank)
    problem = RvmProblem(*sizes, kernel_height, *insert_height(pool or [1] * len(spatial)), dtype == torch.float64)
    if pool is not None:
        problem.parameter = type(problem.parameter)(*(parameter.data_ptr() for parameter in parameters))
    return problem

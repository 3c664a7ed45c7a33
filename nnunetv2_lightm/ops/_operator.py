"""The selective scan as a registered PyTorch operator: schema, fake implementation, gradient formula.

``torch.compile`` and ``torch.export`` see one operator, ``nnunetv2_lightm::selective_scan``, whatever backend runs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .backends import load_backend


@torch.library.custom_op("nnunetv2_lightm::selective_scan", mutates_args=())
def scan_op(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    backend: str,
    keep_checkpoints: bool,
    out_dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """y, last state and the checkpoints from which the backward pass recomputes the states (empty if not kept)."""
    dtype = compute_dtype(u, delta, A, B, C, D, z, delta_bias)
    with torch.autocast(u.device.type, enabled=False):
        inputs = [_to(t, dtype) for t in (u, delta, A, B, C, D, z, delta_bias)]
        y, last, checkpoints = load_backend(backend).forward(*inputs, delta_softplus, keep_checkpoints)
    return y.to(out_dtype or u.dtype), last, checkpoints


@scan_op.register_fake
def _(u, delta, A, B, C, D, z, delta_bias, delta_softplus, backend, keep_checkpoints, out_dtype=None):
    batch, length, d_inner = u.shape
    dtype = compute_dtype(u, delta, A, B, C, D, z, delta_bias)
    chunks = load_backend(backend).checkpoint_count(length)
    shape = (batch, chunks, A.shape[1], d_inner) if keep_checkpoints else (0,)
    y = torch.empty_like(u, dtype=out_dtype, memory_format=torch.contiguous_format)
    return y, u.new_empty(batch, d_inner, A.shape[1], dtype=dtype), u.new_empty(shape, dtype=dtype)


@torch.library.custom_op("nnunetv2_lightm::selective_scan_backward", mutates_args=())
def scan_backward_op(
    grad_y: Tensor,
    grad_last: Tensor | None,
    checkpoints: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of u ... delta_bias in the dtypes of the inputs; an empty tensor stands for an absent input."""
    inputs = (u, delta, A, B, C, D, z, delta_bias)
    dtype = compute_dtype(*inputs)
    with torch.autocast(u.device.type, enabled=False):
        grads = load_backend(backend).backward(
            _to(grad_y, dtype), _to(grad_last, dtype), checkpoints, *(_to(t, dtype) for t in inputs), delta_softplus
        )
    return tuple(
        u.new_empty(0) if t is None else g.to(t.dtype).contiguous() for g, t in zip(grads, inputs, strict=True)
    )


@scan_backward_op.register_fake
def _(grad_y, grad_last, checkpoints, u, delta, A, B, C, D, z, delta_bias, delta_softplus, backend):
    return tuple(
        u.new_empty(0) if t is None else torch.empty_like(t, memory_format=torch.contiguous_format)
        for t in (u, delta, A, B, C, D, z, delta_bias)
    )


def _setup_context(ctx, inputs, output):
    *tensors, delta_softplus, backend, keep_checkpoints, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.delta_softplus, ctx.backend, ctx.has_checkpoints = delta_softplus, backend, keep_checkpoints
    ctx.save_for_backward(output[2], *tensors)


def _backward(ctx, grad_y, grad_last, grad_checkpoints):
    checkpoints, *tensors = ctx.saved_tensors
    if not ctx.has_checkpoints:
        raise RuntimeError("selective_scan was called without checkpoints; call it through ops.selective_scan")
    if grad_y is None:
        grad_y = torch.zeros_like(tensors[0])
    grads = scan_backward_op(grad_y, grad_last, checkpoints, *tensors, ctx.delta_softplus, ctx.backend)
    grads = [g if t is not None and needed else None for g, t, needed in zip(grads, tensors, ctx.needs_input_grad)]
    return *grads, None, None, None, None


scan_op.register_autograd(_backward, setup_context=_setup_context)


def compute_dtype(*tensors: Tensor | None) -> torch.dtype:
    """float64 if a tensor is float64, else float32."""
    wide = any(t is not None and t.dtype == torch.float64 for t in tensors)
    return torch.float64 if wide else torch.float32


def _to(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(dtype)


def to_contiguous(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor as the compiled operators take it."""
    return tensor.to(dtype).contiguous()

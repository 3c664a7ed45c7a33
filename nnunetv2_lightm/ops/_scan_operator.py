"""The selective scan as a registered PyTorch operator: schema, fake implementation, gradient formula.

``torch.compile`` and ``torch.export`` see one operator, ``nnunetv2_lightm::selective_scan``, whatever backend runs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._derivatives import gradients_of_gradients, refuse_forward_mode, register_vmap_by_loop
from ._operands import Operands, checked_once
from .backends import load_backend, select_backend
from .reference import compute_dtype, selective_scan_reference

NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
OPTIONAL = ("D", "z", "delta_bias", "grad_last")
AXES = {
    "u": ("batch", "length", "d_inner"),
    "delta": ("batch", "length", "d_inner"),
    "A": ("d_inner", "d_state"),
    "B": ("batch", "length", "d_state"),
    "C": ("batch", "length", "d_state"),
    "D": ("d_inner",),
    "z": ("batch", "length", "d_inner"),
    "delta_bias": ("d_inner",),
}


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
    refuse_forward_mode("selective_scan")
    tensors = (u, delta, A, B, C, D, z, delta_bias)
    check_scan(tensors, out_dtype, backend)
    dtype = compute_dtype(*tensors)
    with torch.autocast(u.device.type, enabled=False):
        inputs = _as_taken(tensors, backend, dtype)
        y, last, checkpoints = load_backend(backend).forward(*inputs, delta_softplus, keep_checkpoints)
    return y.to(out_dtype or u.dtype), last, checkpoints


@scan_op.register_fake
def _(u, delta, A, B, C, D, z, delta_bias, delta_softplus, backend, keep_checkpoints, out_dtype=None):
    tensors = (u, delta, A, B, C, D, z, delta_bias)
    check_scan(tensors, out_dtype, None, stored=False)
    batch, length, d_inner = u.shape
    dtype = compute_dtype(*tensors)
    chunks = load_backend(backend).checkpoint_count(length)
    shape = (batch, chunks, A.shape[1], d_inner) if keep_checkpoints else (0,)
    y = torch.empty_like(u, dtype=out_dtype, memory_format=torch.contiguous_format)
    return y, u.new_empty((batch, d_inner, A.shape[1]), dtype=dtype), u.new_empty(shape, dtype=dtype)


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
    refuse_forward_mode("selective_scan_backward")
    inputs = (u, delta, A, B, C, D, z, delta_bias)
    _check_scan_backward((*inputs, grad_y, grad_last, checkpoints), backend)
    dtype = compute_dtype(*inputs)
    with torch.autocast(u.device.type, enabled=False):
        given = (_to(grad_last, dtype), checkpoints.contiguous(), *_as_taken(inputs, backend, dtype))
        grads = load_backend(backend).backward(_to(grad_y, dtype), *given, delta_softplus)
    return tuple(
        u.new_empty((0,)) if t is None else g.to(t.dtype).contiguous() for g, t in zip(grads, inputs, strict=True)
    )


@scan_backward_op.register_fake
def _(grad_y, grad_last, checkpoints, u, delta, A, B, C, D, z, delta_bias, delta_softplus, backend):
    inputs = (u, delta, A, B, C, D, z, delta_bias)
    _check_scan_backward((*inputs, grad_y, grad_last, checkpoints), backend, stored=False)
    return tuple(
        u.new_empty((0,)) if t is None else torch.empty_like(t, memory_format=torch.contiguous_format) for t in inputs
    )


@checked_once
def check_scan(
    tensors: tuple[Tensor | None, ...], out_dtype: torch.dtype | None, backend: str | None, *, stored: bool
) -> None:
    """Check the operands of a scan in the order of NAMES; backend: also check that it supports them (None: skip)."""
    operands = Operands("selective_scan", dict(zip(NAMES, tensors, strict=True)), stored, OPTIONAL)
    u, A = tensors[0], tensors[2]
    if u.ndim != 3:
        operands.refuse(f"`u` is {tuple(u.shape)}; expected three axes, (batch, length, d_inner)")
    if A.ndim != 2:
        operands.refuse(f"`A` is {tuple(A.shape)}; expected two axes, (d_inner, d_state)")
    if A.shape[1] == 0:
        operands.refuse(f"`A` is {tuple(A.shape)}; expected at least one state, (d_inner, d_state)")
    operands.require_shapes(AXES, _sizes(u, A), "`u` and `A`")
    operands.require_floats()
    if out_dtype is not None and not out_dtype.is_floating_point:
        operands.refuse(f"out_dtype is {out_dtype}; expected a real floating-point dtype")
    if backend is not None:
        load_backend(backend)
        select_backend(u.device.type, backend, compute_dtype(*tensors))


@checked_once
def _check_scan_backward(tensors: tuple[Tensor | None, ...], backend: str, *, stored: bool) -> None:
    """Check the operands of the scan, then the other inputs of the backward pass."""
    check_scan(tensors[: len(NAMES)], None, backend if stored else None, stored=False)
    names = (*NAMES, "grad_y", "grad_last", "checkpoints")
    operands = Operands("selective_scan_backward", dict(zip(names, tensors, strict=True)), stored, OPTIONAL)
    sizes = _sizes(tensors[0], tensors[2])
    sizes["chunks"] = load_backend(backend).checkpoint_count(sizes["length"])
    axes = {
        "grad_y": AXES["u"],
        "grad_last": ("batch", "d_inner", "d_state"),
        "checkpoints": ("batch", "chunks", "d_state", "d_inner"),
    }
    operands.require_shapes(axes, sizes, "`u`, `A` and the backend")
    operands.require_floats("grad_y", "grad_last")
    operands.require_dtype("checkpoints", compute_dtype(*tensors[: len(NAMES)]))


def _sizes(u: Tensor, A: Tensor) -> dict[str, int]:
    return dict(zip(("batch", "length", "d_inner", "d_state"), (*u.shape, A.shape[1]), strict=True))


def _setup_context(ctx, inputs, output):
    *tensors, delta_softplus, backend, keep_checkpoints, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[2])
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


def _setup_second(ctx, inputs, output):
    grad_y, grad_last, _, *tensors, ctx.delta_softplus, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(grad_y, grad_last, *tensors)


def _backward_of_backward(ctx, *cotangents):
    grad_y, grad_last, *tensors = ctx.saved_tensors

    def scan(*values):
        return selective_scan_reference(*values, ctx.delta_softplus, None if grad_y is None else grad_y.dtype)

    grads, (second_y, second_last) = gradients_of_gradients(scan, tensors, (grad_y, grad_last), cotangents)
    return second_y, second_last, None, *grads, None, None


scan_backward_op.register_autograd(_backward_of_backward, setup_context=_setup_second)
register_vmap_by_loop(scan_op)
register_vmap_by_loop(scan_backward_op)


def _as_taken(inputs: tuple[Tensor | None, ...], backend: str, dtype: torch.dtype) -> list[Tensor | None]:
    """u ... delta_bias in the compute dtype; for a backend that casts tokens in registers these stay as they are."""
    as_given = {0, 1, 3, 4, 6} if load_backend(backend).TAKES_HALF and dtype == torch.float32 else set()
    return [t if i in as_given else _to(t, dtype) for i, t in enumerate(inputs)]


def _to(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(dtype)

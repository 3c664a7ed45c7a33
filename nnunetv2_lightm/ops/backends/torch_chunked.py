"""The selective scan in pure PyTorch, on any device: chunks of tokens side by side, memory O(length * d_inner).

The sequence is cut into chunks of ``CHUNK_LENGTH`` tokens. A chunk's recurrence is linear in the state it starts
from, ``h_end = exp(A sum(delta)) * h_start + h_local``, so three steps give the exact result:

1. every chunk runs from a zero state: h_local;
2. a short loop over the chunks yields the state each one truly starts from (these are the checkpoints);
3. every chunk runs again from there and emits its outputs.

All chunks of a group advance together, token by token, on buffers small enough to stay in cache. The backward pass
does the same in reverse and recomputes the states of one group at a time from the checkpoints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .torch_chunks import (
    CHUNK_LENGTH,
    chunk_end_gradients,
    chunk_starts,
    finite_rates,
    group_backward,
    groups_of,
    outputs,
    step_sizes,
    to_chunks,
    to_tokens,
)

NAME = "torch_chunked"
COMPUTE_DTYPES = (torch.float32, torch.float64)
TAKES_HALF = False


def not_supported_reason(device_type: str) -> str | None:
    """Why this backend cannot run on the device; None: it can (it runs wherever PyTorch does)."""
    return None


def describe() -> str:
    return "pure PyTorch, any device"


def checkpoint_count(length: int) -> int:
    """Number of checkpointed states for a sequence of the length."""
    return (length + CHUNK_LENGTH - 1) // CHUNK_LENGTH


def forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    keep_checkpoints: bool,
    first_state: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs in the compute dtype (float32 or float64); first_state: (batch, d_inner, d_state), None: zero.

    Returns: y (batch, length, d_inner); last state (batch, d_inner, d_state); checkpoints, the state that each chunk
        starts from, (batch, chunks, d_state, d_inner), or empty if they are not kept.
    """
    batch, length, d_inner = u.shape
    if u.numel() == 0:
        shape = (batch, checkpoint_count(length), A.shape[1], d_inner) if keep_checkpoints else (0,)
        last = u.new_zeros((batch, d_inner, A.shape[1])) if first_state is None else first_state.clone()
        return torch.zeros_like(u), last, u.new_zeros(shape)

    A_t = finite_rates(A)
    dt = step_sizes(delta, delta_bias, delta_softplus)
    dt, x, B, C = (to_chunks(t) for t in (dt, dt * u, B, C))
    starts, last = chunk_starts(dt, x, B, A_t, batch, first_state)
    y = outputs(starts, dt, x, B, C, A_t, u, D, z)
    checkpoints = starts.view(batch, -1, *starts.shape[1:]) if keep_checkpoints else u.new_empty((0,))
    return y, last.transpose(1, 2).contiguous(), checkpoints


def replay(
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
) -> Tensor:
    """Recompute y of ``forward`` from its checkpoints."""
    if u.numel() == 0:
        return torch.zeros_like(u)
    dt = step_sizes(delta, delta_bias, delta_softplus)
    dt, x, B, C = (to_chunks(t) for t in (dt, dt * u, B, C))
    return outputs(checkpoints.flatten(0, 1), dt, x, B, C, finite_rates(A), u, D, z)


def backward(
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
    grad_first: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of u, delta, A, B, C, D, z and delta_bias (None where the input is None), in the compute dtype.

    grad_first: (batch, d_inner, d_state), written if given: the gradient of the first state.
    """
    batch, length, d_inner = u.shape
    if u.numel() == 0:
        if grad_first is not None:
            grad_first.zero_() if grad_last is None else grad_first.copy_(grad_last)
        inputs = (u, delta, A, B, C, D, z, delta_bias)
        return tuple(None if t is None else torch.zeros_like(t) for t in inputs)

    A_t = finite_rates(A)
    dt_tokens = step_sizes(delta, delta_bias, delta_softplus)
    gate = None if z is None else F.silu(z)
    grad_scan = grad_y if gate is None else grad_y * gate
    dt, x, B_chunks, C_chunks, gy = (to_chunks(t) for t in (dt_tokens, dt_tokens * u, B, C, grad_scan))
    starts = checkpoints.flatten(0, 1)
    grad_ends, through_all = chunk_end_gradients(dt, C_chunks, gy, A_t, batch, grad_last)
    if grad_first is not None:
        grad_first.copy_(through_all.transpose(1, 2))

    grad_dt, grad_x, y_scan = torch.empty_like(dt), torch.empty_like(x), None if z is None else torch.empty_like(x)
    grad_B, grad_C = torch.empty_like(B_chunks), torch.empty_like(C_chunks)
    grad_A_t = torch.zeros_like(A_t)
    groups = groups_of(starts)
    # One group's states and decays, allocated once: fresh pages for each group would cost as much as the work.
    states = A_t.new_empty((CHUNK_LENGTH + 1, *starts[groups[0]].shape))
    decays = torch.empty_like(states[1:])
    for group in groups:
        group_backward(
            group,
            starts,
            grad_ends,
            dt,
            x,
            B_chunks,
            C_chunks,
            gy,
            A_t,
            grad_dt,
            grad_x,
            grad_B,
            grad_C,
            grad_A_t,
            y_scan,
            states[:, : starts[group].shape[0]],
            decays[:, : starts[group].shape[0]],
        )

    grad_dt, grad_x, grad_B, grad_C = (to_tokens(t, batch, length) for t in (grad_dt, grad_x, grad_B, grad_C))
    grad_u = grad_x * dt_tokens
    grad_delta = torch.addcmul(grad_dt, grad_x, u)
    grad_D = grad_z = None
    if D is not None:
        grad_D = (grad_scan * u).sum((0, 1))
        grad_u = torch.addcmul(grad_u, grad_scan, D)
    if z is not None:
        y = to_tokens(y_scan, batch, length)
        if D is not None:
            y = torch.addcmul(y, u, D)
        sigmoid = torch.sigmoid(z)
        grad_z = grad_y * y * (sigmoid * (1 + z * (1 - sigmoid)))
    if delta_softplus:
        raw = delta if delta_bias is None else delta + delta_bias
        grad_delta = grad_delta * torch.sigmoid(raw)
    grad_bias = None if delta_bias is None else grad_delta.sum((0, 1))
    return grad_u, grad_delta, grad_A_t.t(), grad_B, grad_C, grad_D, grad_z, grad_bias

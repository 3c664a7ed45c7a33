"""The steps of :mod:`.torch_chunked`: all chunks of a group advance together, token by token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_LENGTH = 64
# State elements that advance together in one step. On a CPU: large enough to hide PyTorch's call overhead, small enough
# for L2. Elsewhere a step is a few launches whatever its size, so only memory bounds the groups: the backward
# pass holds 2 * CHUNK_LENGTH times as many elements, 512 MiB in float32.
GROUP_ELEMENTS = {"cpu": 1 << 17}
GROUP_ELEMENTS_ELSEWHERE = 1 << 20
# Chunks whose states are combined into those of a longer chunk if a loop over all of them would be long.
CARRY_CHUNKS = 64


def step_sizes(delta: Tensor, delta_bias: Tensor | None, delta_softplus: bool) -> Tensor:
    """The step sizes that discretise A and B, positive after the softplus."""
    if delta_bias is not None:
        delta = delta + delta_bias
    return F.softplus(delta) if delta_softplus else delta


def to_chunks(x: Tensor) -> Tensor:
    """(batch, length, k) -> (batch * chunks, CHUNK_LENGTH, k); a token of zeros leaves the state as it is."""
    batch, length, k = x.shape
    missing = -length % CHUNK_LENGTH
    if missing:
        x = F.pad(x, (0, 0, 0, missing))
    return x.reshape(-1, CHUNK_LENGTH, k)


def to_tokens(x: Tensor, batch: int, length: int) -> Tensor:
    """Inverse of :func:`to_chunks`."""
    return x.view(batch, -1, x.shape[-1])[:, :length].contiguous()


def groups_of(states: Tensor) -> list[slice]:
    """Slices of chunks that advance together; states: (chunks, d_state, d_inner)."""
    elements = GROUP_ELEMENTS.get(states.device.type, GROUP_ELEMENTS_ELSEWHERE)
    size = max(1, elements // (states.shape[1] * states.shape[2]))
    return [slice(i, i + size) for i in range(0, states.shape[0], size)]


def finite_rates(A: Tensor) -> Tensor:
    """A, (d_inner, d_state), as (d_state, d_inner), finite: an infinite rate would make NaN of a padding token's step
    of 0. Beyond a step of 1e-36, or 1e-305 in float64, the decays are those of infinity, 0."""
    return A.t().clamp_min(torch.finfo(A.dtype).min).contiguous()


def _advance(h: Tensor, decay: Tensor, dt: Tensor, x: Tensor, B: Tensor, A_t: Tensor) -> None:
    """One token for each chunk of a group, in place: h <- exp(dt A) h + x B; h, decay: (chunks, d_state, d_inner)."""
    torch.mul(dt[:, None, :], A_t, out=decay)
    decay.exp_()
    h.mul_(decay).addcmul_(x[:, None, :], B[:, :, None])


def _sum_products(a: Tensor, b: Tensor, dim: int, work: Tensor, out: Tensor) -> None:
    """out <- (a * b).sum(dim); unlike bmm, fast on a CPU whatever the strides of out."""
    torch.mul(a, b, out=work)
    torch.sum(work, dim, out=out)


def outputs(
    starts: Tensor,
    dt: Tensor,
    x: Tensor,
    B: Tensor,
    C: Tensor,
    A_t: Tensor,
    u: Tensor,
    D: Tensor | None,
    z: Tensor | None,
) -> Tensor:
    """Every chunk runs from its true start; starts ... C are in chunks, u and z in tokens, as is the result."""
    y = torch.empty_like(x)
    for group in groups_of(starts):
        h = starts[group].clone()
        decay = torch.empty_like(h)
        for t in range(CHUNK_LENGTH):
            _advance(h, decay, dt[group, t], x[group, t], B[group, t], A_t)
            _sum_products(h, C[group, t, :, None], 1, decay, y[group, t])
    y = to_tokens(y, *u.shape[:2])
    if D is not None:
        y = torch.addcmul(y, u, D)
    return y if z is None else y * F.silu(z)


def chunk_starts(
    dt: Tensor, x: Tensor, B: Tensor, A_t: Tensor, batch: int, first_state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The state each chunk starts from, (batch * chunks, d_state, d_inner), and the state after the last token."""
    local = dt.new_zeros((dt.shape[0], *A_t.shape))
    for group in groups_of(local):
        decay = torch.empty_like(local[group])
        for t in range(CHUNK_LENGTH):
            _advance(local[group], decay, dt[group, t], x[group, t], B[group, t], A_t)
    state = torch.zeros_like(local[:batch]) if first_state is None else first_state.transpose(1, 2)
    starts, last = _carry(*_of_batch(dt, local, batch), A_t, state)
    return starts.flatten(0, 1), last


def chunk_end_gradients(
    dt: Tensor, C: Tensor, gy: Tensor, A_t: Tensor, batch: int, grad_last: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Gradient of the state at each chunk's end that the later chunks send, (batch * chunks, d_state, d_inner), and
    that of the state before the first token."""
    local = dt.new_zeros((dt.shape[0], *A_t.shape))
    for group in groups_of(local):
        g, decay = local[group], torch.empty_like(local[group])
        for t in reversed(range(CHUNK_LENGTH)):
            torch.mul(dt[group, t, None, :], A_t, out=decay)
            g.addcmul_(gy[group, t, None, :], C[group, t, :, None]).mul_(decay.exp_())
    grad = torch.zeros_like(local[:batch]) if grad_last is None else grad_last.transpose(1, 2)
    # The same sum from the last chunk to the first.
    ends, first = _carry(*(t.flip(1) for t in _of_batch(dt, local, batch)), A_t, grad)
    return ends.flip(1).flatten(0, 1), first


def _of_batch(dt: Tensor, local: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """Sums of the step sizes, (batch, chunks, d_inner), and local states, (batch, chunks, d_state, d_inner)."""
    return dt.sum(1).view(batch, -1, dt.shape[-1]), local.view(batch, -1, *local.shape[1:])


def _carry(dt_sums: Tensor, local: Tensor, A_t: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """``state <- exp(A sum(dt)) state + local`` over the chunks: the state before each one, and the last.

    The loop over many chunks is taken in two levels: CARRY_CHUNKS to a longer chunk, then the longer chunks in a loop.
    """
    batch, chunks = local.shape[:2]
    if chunks <= 2 * CARRY_CHUNKS:
        through = torch.exp(dt_sums[:, :, None, :] * A_t)
        starts = torch.empty_like(local)
        for c in range(chunks):
            starts[:, c] = state
            state = torch.addcmul(local[:, c], through[:, c], state)
        return starts, state
    # Padded to full groups with chunks that leave the state as it is.
    missing = -chunks % CARRY_CHUNKS
    dt_groups = F.pad(dt_sums, (0, 0, 0, missing)).view(-1, CARRY_CHUNKS, dt_sums.shape[-1])
    local_groups = F.pad(local, (0, 0, 0, 0, 0, missing)).view(-1, CARRY_CHUNKS, *local.shape[2:])
    zero = torch.zeros_like(local_groups[:, 0])
    _, ends = _carry(dt_groups, local_groups, A_t, zero)
    group_starts, last = _carry(*_of_batch(dt_groups, ends, batch), A_t, state)
    starts, _ = _carry(dt_groups, local_groups, A_t, group_starts.flatten(0, 1))
    return starts.view(batch, -1, *local.shape[2:])[:, :chunks], last


def group_backward(
    group: slice,
    starts: Tensor,
    grad_ends: Tensor,
    dt: Tensor,
    x: Tensor,
    B: Tensor,
    C: Tensor,
    gy: Tensor,
    A_t: Tensor,
    grad_dt: Tensor,
    grad_x: Tensor,
    grad_B: Tensor,
    grad_C: Tensor,
    grad_A_t: Tensor,
    y_scan: Tensor | None,
    states: Tensor,
    decays: Tensor,
) -> None:
    """Write one group's gradients into the buffers (grad_A_t accumulates); y_scan, if given, gets C h again.

    states, decays: work space, (CHUNK_LENGTH + 1 and CHUNK_LENGTH, chunks in the group, d_state, d_inner).
    """
    states[0] = starts[group]
    work = torch.empty_like(states[0])
    for t in range(CHUNK_LENGTH):
        torch.mul(dt[group, t, None, :], A_t, out=decays[t])
        decays[t].exp_()
        torch.mul(states[t], decays[t], out=states[t + 1])
        states[t + 1].addcmul_(x[group, t, None, :], B[group, t, :, None])
        _sum_products(states[t + 1], gy[group, t, None, :], 2, work, grad_C[group, t])
        if y_scan is not None:
            _sum_products(states[t + 1], C[group, t, :, None], 1, work, y_scan[group, t])

    g = grad_ends[group].clone()
    through_A = torch.zeros_like(g)
    for t in reversed(range(CHUNK_LENGTH)):
        g.addcmul_(gy[group, t, None, :], C[group, t, :, None])
        _sum_products(g, x[group, t, None, :], 2, work, grad_B[group, t])
        _sum_products(g, B[group, t, :, None], 1, work, grad_x[group, t])
        g.mul_(decays[t])
        exponent = states[t].mul_(g)
        _sum_products(exponent, A_t, 1, work, grad_dt[group, t])
        through_A.addcmul_(exponent, dt[group, t, None, :])
    grad_A_t += through_A.sum(0)

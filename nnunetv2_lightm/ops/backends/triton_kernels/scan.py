"""Triton kernels of the selective scan's forward pass; :mod:`..triton_gpu` launches them and explains the algorithm.

A program owns a tile (BLOCK_N states, BLOCK_D channels) of one chunk of one sequence and walks through its tokens.
Tensors are contiguous: tokens (batch, length, channels), states (..., states, channels); the rows of B and C (batch,
length, states) are ``row_stride`` apart. With RANK, delta is its low-rank factor (batch, length, RANK), rows apart like
those of B, and is projected to the channels in registers. Tokens, B, C, y and the projection's weight may have any
floating dtype; A, D, the bias and the states are TYPE, in which everything is computed. Lanes beyond the states or
channels read zeros and write nothing. Pointers may be None only where noted.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def softplus(x):
    e = tl.exp(-tl.abs(x))
    w = 1.0 + e
    # log1p(e): the rounding error of w cancels in the quotient, so that small step sizes keep their precision.
    correction = e / tl.where(w == 1.0, 1.0, w - 1.0)
    return tl.maximum(x, 0.0) + tl.where(w == 1.0, e, tl.log(w) * correction)


@triton.jit
def sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def channels_or_zero(ptr, d, in_d, TYPE: tl.constexpr):
    """A vector over channels; zeros if the pointer is None."""
    if ptr is None:
        return tl.zeros(d.shape, dtype=TYPE)
    else:
        return tl.load(ptr + d, mask=in_d, other=0.0)


@triton.jit
def projection_of_delta(weight_ptr, d, in_d, channels, RANK: tl.constexpr, TYPE: tl.constexpr):
    """The weights (RANK, channels) of the channels, a tuple of RANK vectors."""
    weights = ()
    for r in tl.static_range(RANK):
        weights = weights + (tl.load(weight_ptr + r * channels + d, mask=in_d, other=0.0).to(TYPE),)
    return weights


@triton.jit
def raw_step(
    delta_ptr, weights, bias, row, row_stride, channels, d, in_d, inside, RANK: tl.constexpr, TYPE: tl.constexpr
):
    """A token's step sizes before the softplus; ``inside``: whether there is such a token."""
    if RANK == 0:
        return tl.load(delta_ptr + row * channels + d, mask=in_d & inside, other=0.0).to(TYPE) + bias
    else:
        raw = bias
        for r in tl.static_range(RANK):
            raw += tl.load(delta_ptr + row * row_stride + r, mask=inside, other=0.0).to(TYPE) * weights[r]
        return raw


# Knowing a length makes these kernels no faster, and each new one would mean compiling them again.
@triton.jit(do_not_specialize=["length", "chunks"])
def scan_chunks(
    u_ptr,
    delta_ptr,
    A_ptr,
    B_ptr,
    C_ptr,
    D_ptr,  # or None
    z_ptr,  # or None
    bias_ptr,  # or None
    weight_ptr,  # (RANK, channels), or None
    starts_ptr,  # (batch, chunks, states, channels); None: from zero
    y_ptr,  # None: no output
    ends_ptr,  # (batch, chunks, states, channels), the state after each chunk; None: not wanted
    dt_sums_ptr,  # (batch, chunks, channels), with ends_ptr
    length,
    chunks,
    states,
    channels,
    row_stride,
    SOFTPLUS: tl.constexpr,
    CHUNK: tl.constexpr,
    RANK: tl.constexpr,
    TYPE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    chunk = tl.program_id(0).to(tl.int64)
    n = tl.arange(0, BLOCK_N)[:, None]
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)[None, :]
    in_n, in_d = n < states, d < channels
    in_h = in_n & in_d
    at_h = n * channels + d
    at_chunk = chunk * states * channels
    A = tl.load(A_ptr + at_h, mask=in_h, other=0.0)
    D = channels_or_zero(D_ptr, d, in_d, TYPE)
    bias = channels_or_zero(bias_ptr, d, in_d, TYPE)
    weights = projection_of_delta(weight_ptr, d, in_d, channels, RANK, TYPE)
    if starts_ptr is None:
        h = tl.zeros((BLOCK_N, BLOCK_D), dtype=TYPE)
    else:
        h = tl.load(starts_ptr + at_chunk + at_h, mask=in_h, other=0.0)
    dt_sum = tl.zeros((1, BLOCK_D), dtype=TYPE)

    first = (chunk % chunks) * CHUNK
    row = (chunk // chunks) * length + first
    for _ in range(0, tl.minimum(length - first, CHUNK).to(tl.int32)):
        at_d, at_n = row * channels + d, row * row_stride + n
        u = tl.load(u_ptr + at_d, mask=in_d, other=0.0).to(TYPE)
        dt = raw_step(delta_ptr, weights, bias, row, row_stride, channels, d, in_d, True, RANK, TYPE)
        if SOFTPLUS:
            dt = softplus(dt)
        B = tl.load(B_ptr + at_n, mask=in_n, other=0.0).to(TYPE)
        h = tl.exp(dt * A) * h + (dt * u) * B
        if y_ptr is not None:
            C = tl.load(C_ptr + at_n, mask=in_n, other=0.0).to(TYPE)
            y = tl.sum(h * C, axis=0, keep_dims=True) + D * u
            if z_ptr is not None:
                z = tl.load(z_ptr + at_d, mask=in_d, other=0.0).to(TYPE)
                y *= z * sigmoid(z)
            tl.store(y_ptr + at_d, y, mask=in_d)
        dt_sum += dt
        row += 1

    if ends_ptr is not None:
        tl.store(ends_ptr + at_chunk + at_h, h, mask=in_h)
        tl.store(dt_sums_ptr + chunk * channels + d, dt_sum, mask=in_d)


@triton.jit(do_not_specialize=["chunks", "groups"])
def carry(
    A_ptr,
    dt_sums_ptr,  # (batch, chunks, channels)
    local_ptr,  # (batch, chunks, states, channels), what each chunk makes of a zero state
    firsts_ptr,  # (batch, groups, states, channels), the state each group of chunks starts from; None: zero
    starts_ptr,  # like local, written, may be the same memory: the state each chunk starts from; None: not wanted
    ends_ptr,  # (batch, groups, states, channels), the state each group ends with; None: not wanted
    group_dt_ptr,  # (batch, groups, channels), sums over the group, with ends_ptr
    chunks,
    groups,
    states,
    channels,
    REVERSE: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """h <- exp(A sum(dt)) h + local over the chunks of each group, forwards or backwards."""
    group = tl.program_id(0).to(tl.int64)
    elements = states * channels
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = i < elements
    d = i % channels
    A = tl.load(A_ptr + i, mask=inside, other=0.0)
    if firsts_ptr is None:
        h = tl.zeros((BLOCK,), dtype=local_ptr.dtype.element_ty)
    else:
        h = tl.load(firsts_ptr + group * elements + i, mask=inside, other=0.0)
    dt_sum = tl.zeros((BLOCK,), dtype=local_ptr.dtype.element_ty)

    first = (group % groups) * GROUP
    count = tl.minimum(chunks - first, GROUP).to(tl.int32)
    for step in range(0, count):
        chunk = (group // groups) * chunks + first
        if REVERSE:
            chunk += count - 1 - step
        else:
            chunk += step
        at = chunk * elements + i
        local = tl.load(local_ptr + at, mask=inside, other=0.0)
        dt = tl.load(dt_sums_ptr + chunk * channels + d, mask=inside, other=0.0)
        if starts_ptr is not None:
            tl.store(starts_ptr + at, h, mask=inside)
        h = tl.exp(dt * A) * h + local
        dt_sum += dt

    if ends_ptr is not None:
        tl.store(ends_ptr + group * elements + i, h, mask=inside)
        tl.store(group_dt_ptr + group * channels + i, dt_sum, mask=i < channels)

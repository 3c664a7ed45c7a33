"""Triton kernels of the selective scan's backward pass, with the conventions of :mod:`.scan`."""

from __future__ import annotations

import triton
import triton.language as tl

from .scan import channels_or_zero, sigmoid, softplus


@triton.jit
def gradients_through_chunks(
    grad_y_ptr,
    delta_ptr,
    A_ptr,
    C_ptr,
    z_ptr,  # or None
    bias_ptr,  # or None
    ends_ptr,  # (batch, chunks, states, channels), written: what a chunk's outputs send to the state before it
    dt_sums_ptr,  # (batch, chunks, channels), written
    length,
    chunks,
    states,
    channels,
    SOFTPLUS: tl.constexpr,
    CHUNK: tl.constexpr,
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
    A = tl.load(A_ptr + at_h, mask=in_h, other=0.0)
    bias = channels_or_zero(bias_ptr, d, in_d, TYPE)
    g = tl.zeros((BLOCK_N, BLOCK_D), dtype=TYPE)
    dt_sum = tl.zeros((1, BLOCK_D), dtype=TYPE)

    first = (chunk % chunks) * CHUNK
    count = tl.minimum(length - first, CHUNK).to(tl.int32)
    row = (chunk // chunks) * length + first + count
    for _ in range(0, count):
        row -= 1
        at_d, at_n = row * channels + d, row * states + n
        gy = tl.load(grad_y_ptr + at_d, mask=in_d, other=0.0).to(TYPE)
        if z_ptr is not None:
            z = tl.load(z_ptr + at_d, mask=in_d, other=0.0).to(TYPE)
            gy *= z * sigmoid(z)
        dt = tl.load(delta_ptr + at_d, mask=in_d, other=0.0).to(TYPE) + bias
        if SOFTPLUS:
            dt = softplus(dt)
        C = tl.load(C_ptr + at_n, mask=in_n, other=0.0).to(TYPE)
        g = tl.exp(dt * A) * (g + gy * C)
        dt_sum += dt

    tl.store(ends_ptr + chunk * states * channels + at_h, g, mask=in_h)
    tl.store(dt_sums_ptr + chunk * channels + d, dt_sum, mask=in_d)


@triton.jit
def over_states(tile):
    """Sum over the last axis and, within each thread, the first."""
    return tl.sum(tl.sum(tile, axis=0, keep_dims=True), axis=2, keep_dims=True)


@triton.jit
def step_of(delta_ptr, at_d, in_d, bias, inside, TYPE: tl.constexpr, SOFTPLUS: tl.constexpr):
    """delta before the softplus, and the step size, which is 0 beyond the chunk."""
    raw = tl.load(delta_ptr + at_d, mask=in_d & inside, other=0.0).to(TYPE) + bias
    return raw, tl.where(inside, softplus(raw) if SOFTPLUS else raw, 0.0)


@triton.jit(do_not_specialize=["first_chunk"])
def backward_chunks(
    grad_y_ptr,
    u_ptr,
    delta_ptr,
    A_ptr,
    B_ptr,
    C_ptr,
    D_ptr,  # or None
    z_ptr,  # or None
    bias_ptr,  # or None
    starts_ptr,  # (batch, chunks, states, channels)
    grad_ends_ptr,  # like starts: the gradient of the state after each chunk that later chunks send
    states_ptr,  # (chunks of this launch, CHUNK // SPAN, states, channels), work space
    grad_u_ptr,
    grad_delta_ptr,
    grad_A_ptr,  # (batch, chunks, states, channels), to be summed
    grad_B_ptr,  # (blocks of channels, batch, length, states), to be summed
    grad_C_ptr,  # the same
    grad_D_ptr,  # (batch, chunks, channels), to be summed; None as D_ptr
    grad_z_ptr,
    grad_bias_ptr,  # (batch, chunks, channels), to be summed; None as bias_ptr
    first_chunk,
    tokens,  # batch * length
    length,
    chunks,
    states,
    channels,
    SOFTPLUS: tl.constexpr,
    CHUNK: tl.constexpr,
    SPAN: tl.constexpr,
    TYPE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """The gradients of a chunk. The state before every SPAN tokens goes to memory; when a span's turn comes, the states
    within it are computed again and stay in registers together with their decays.

    A tile has three axes, (states, channels, four states), so that Triton lays it out over the threads to suit the
    sums: four threads share the states of a channel and eight the channels of a state, so a sum over either takes few
    shuffles.
    """
    chunk = first_chunk + tl.program_id(0).to(tl.int64)
    LANES: tl.constexpr = 4 if BLOCK_N >= 4 else BLOCK_N
    ROWS: tl.constexpr = BLOCK_N // LANES
    n = tl.arange(0, ROWS)[:, None, None] * LANES + tl.arange(0, LANES)[None, None, :]
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)[None, :, None]
    in_n, in_d = n < states, d < channels
    in_h = in_n & in_d
    at_h = n * channels + d
    elements = states * channels
    at_chunk = chunk * elements + at_h
    states_ptr += tl.program_id(0).to(tl.int64) * (CHUNK // SPAN) * elements
    partial = tl.program_id(1).to(tl.int64) * tokens * states
    A = tl.load(A_ptr + at_h, mask=in_h, other=0.0)
    D = channels_or_zero(D_ptr, d, in_d, TYPE)
    bias = channels_or_zero(bias_ptr, d, in_d, TYPE)

    h = tl.load(starts_ptr + at_chunk, mask=in_h, other=0.0)
    first = (chunk % chunks) * CHUNK
    count = tl.minimum(length - first, CHUNK).to(tl.int32)
    spans = (count + SPAN - 1) // SPAN
    first_row = (chunk // chunks) * length + first
    for span in range(0, spans):
        tl.store(states_ptr + span * elements + at_h, h, mask=in_h)
        for t in range(span * SPAN, tl.minimum(span * SPAN + SPAN, count)):
            row = first_row + t
            at_d = row * channels + d
            _, dt = step_of(delta_ptr, at_d, in_d, bias, t < count, TYPE, SOFTPLUS)
            u = tl.load(u_ptr + at_d, mask=in_d, other=0.0).to(TYPE)
            B = tl.load(B_ptr + row * states + n, mask=in_n, other=0.0).to(TYPE)
            h = tl.exp(dt * A) * h + (dt * u) * B
    # The compiler may hand an element to another thread below.
    tl.debug_barrier()

    g = tl.load(grad_ends_ptr + at_chunk, mask=in_h, other=0.0)
    grad_A = tl.zeros((ROWS, BLOCK_D, LANES), dtype=TYPE)
    grad_D = tl.zeros((1, BLOCK_D, 1), dtype=TYPE)
    grad_bias = tl.zeros((1, BLOCK_D, 1), dtype=TYPE)
    for back in range(0, spans):
        span = spans - 1 - back
        h = tl.load(states_ptr + span * elements + at_h, mask=in_h, other=0.0)
        befores, decays = (), ()
        for t in tl.static_range(SPAN):
            inside = span * SPAN + t < count
            row = first_row + span * SPAN + t
            at_d = row * channels + d
            _, dt = step_of(delta_ptr, at_d, in_d, bias, inside, TYPE, SOFTPLUS)
            u = tl.load(u_ptr + at_d, mask=in_d & inside, other=0.0).to(TYPE)
            B = tl.load(B_ptr + row * states + n, mask=in_n & inside, other=0.0).to(TYPE)
            # A token beyond the end leaves state and gradient alone, even if A is NaN.
            decay = tl.where(inside, tl.exp(dt * A), 1.0)
            befores, decays = befores + (h,), decays + (decay,)
            h = decay * h + (dt * u) * B

        for t in tl.static_range(SPAN):
            inside = span * SPAN + (SPAN - 1 - t) < count
            row = first_row + span * SPAN + (SPAN - 1 - t)
            at_d, at_n = row * channels + d, row * states + n
            raw, dt = step_of(delta_ptr, at_d, in_d, bias, inside, TYPE, SOFTPLUS)
            u = tl.load(u_ptr + at_d, mask=in_d & inside, other=0.0).to(TYPE)
            B = tl.load(B_ptr + at_n, mask=in_n & inside, other=0.0).to(TYPE)
            C = tl.load(C_ptr + at_n, mask=in_n & inside, other=0.0).to(TYPE)
            gy = tl.load(grad_y_ptr + at_d, mask=in_d & inside, other=0.0).to(TYPE)
            if z_ptr is not None:
                z = tl.load(z_ptr + at_d, mask=in_d & inside, other=0.0).to(TYPE)
                y = over_states(h * C) + D * u
                gate = sigmoid(z)
                tl.store(grad_z_ptr + at_d, gy * y * gate * (1.0 + z * (1.0 - gate)), mask=in_d & inside)
                gy *= z * gate
            tl.store(grad_C_ptr + partial + at_n, tl.sum(h * gy, axis=1, keep_dims=True), mask=in_n & inside)

            x = dt * u
            g += gy * C
            tl.store(grad_B_ptr + partial + at_n, tl.sum(g * x, axis=1, keep_dims=True), mask=in_n & inside)
            grad_x = over_states(g * B)
            h = befores[SPAN - 1 - t]
            g *= decays[SPAN - 1 - t]
            exponent = g * h
            grad_A += exponent * dt
            grad_dt = over_states(exponent * A) + grad_x * u
            if SOFTPLUS:
                grad_dt *= sigmoid(raw)
            grad_dt = tl.where(inside, grad_dt, 0.0)
            tl.store(grad_u_ptr + at_d, grad_x * dt + gy * D, mask=in_d & inside)
            tl.store(grad_delta_ptr + at_d, grad_dt, mask=in_d & inside)
            grad_D += gy * u
            grad_bias += grad_dt

    tl.store(grad_A_ptr + at_chunk, grad_A, mask=in_h)
    if D_ptr is not None:
        tl.store(grad_D_ptr + chunk * channels + d, grad_D, mask=in_d)
    if bias_ptr is not None:
        tl.store(grad_bias_ptr + chunk * channels + d, grad_bias, mask=in_d)

"""Triton kernels of the selective scan's backward pass, with the conventions of :mod:`.scan`."""

from __future__ import annotations

import triton
import triton.language as tl

from .scan import channels_or_zero, projection_of_delta, raw_step, sigmoid, softplus


@triton.jit(do_not_specialize=["length", "chunks"])
def gradients_through_chunks(
    grad_y_ptr,
    delta_ptr,
    A_ptr,
    C_ptr,
    z_ptr,  # or None
    bias_ptr,  # or None
    weight_ptr,  # (RANK, channels), or None
    ends_ptr,  # (batch, chunks, states, channels), written: what a chunk's outputs send to the state before it
    dt_sums_ptr,  # (batch, chunks, channels), written
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
    A = tl.load(A_ptr + at_h, mask=in_h, other=0.0)
    bias = channels_or_zero(bias_ptr, d, in_d, TYPE)
    weights = projection_of_delta(weight_ptr, d, in_d, channels, RANK, TYPE)
    g = tl.zeros((BLOCK_N, BLOCK_D), dtype=TYPE)
    dt_sum = tl.zeros((1, BLOCK_D), dtype=TYPE)

    first = (chunk % chunks) * CHUNK
    count = tl.minimum(length - first, CHUNK).to(tl.int32)
    row = (chunk // chunks) * length + first + count
    for _ in range(0, count):
        row -= 1
        at_d, at_n = row * channels + d, row * row_stride + n
        gy = tl.load(grad_y_ptr + at_d, mask=in_d, other=0.0).to(TYPE)
        if z_ptr is not None:
            z = tl.load(z_ptr + at_d, mask=in_d, other=0.0).to(TYPE)
            gy *= z * sigmoid(z)
        dt = raw_step(delta_ptr, weights, bias, row, row_stride, channels, d, in_d, True, RANK, TYPE)
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
def next_state(
    h, pointers, A, bias, weights, row, row_stride, states, channels, n, d, SOFTPLUS: tl.constexpr, RANK: tl.constexpr
):
    """The state after a token of the chunk; pointers: to u, delta and B."""
    dt = raw_step(pointers[1], weights, bias, row, row_stride, channels, d, d < channels, True, RANK, A.dtype)
    if SOFTPLUS:
        dt = softplus(dt)
    u = tl.load(pointers[0] + row * channels + d, mask=d < channels, other=0.0).to(A.dtype)
    B = tl.load(pointers[2] + row * row_stride + n, mask=n < states, other=0.0).to(A.dtype)
    return tl.exp(dt * A) * h + (dt * u) * B


@triton.jit(do_not_specialize=["first_chunk", "tokens", "length", "chunks"])
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
    weight_ptr,  # (RANK, channels), or None
    starts_ptr,  # (batch, chunks, states, channels)
    grad_ends_ptr,  # like starts: the gradient of the state after each chunk that later chunks send
    states_ptr,  # (chunks of this launch, CHUNK / (KEPT * SPAN), states, channels), work space
    grad_u_ptr,
    grad_delta_ptr,  # None with RANK
    grad_z_ptr,  # None as z_ptr
    grad_rows_ptr,  # (blocks of channels, batch, length, 2 * states + RANK), to be summed: of B, C and delta's factor
    sums_ptr,  # (batch, chunks, states + 2 + RANK, channels), to be summed: of A, D, the bias and delta's projection
    first_chunk,
    tokens,  # batch * length
    length,
    chunks,
    states,
    channels,
    row_stride,
    SOFTPLUS: tl.constexpr,
    CHUNK: tl.constexpr,
    RANK: tl.constexpr,
    SPAN: tl.constexpr,
    KEPT: tl.constexpr,
    TYPE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """The gradients of a chunk. The state before every KEPT-th span of SPAN tokens goes to memory; when a span's turn
    comes, the state before it is computed from there, and those within it stay in registers together with their decays.

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
    GROUP: tl.constexpr = KEPT * SPAN
    states_ptr += tl.program_id(0).to(tl.int64) * ((CHUNK + GROUP - 1) // GROUP) * elements
    ROW = 2 * states + RANK
    grad_rows_ptr += tl.program_id(1).to(tl.int64) * tokens * ROW
    zero = tl.zeros((1, 1, 1), dtype=tl.int32)
    A = tl.load(A_ptr + at_h, mask=in_h, other=0.0)
    D = channels_or_zero(D_ptr, d, in_d, TYPE)
    bias = channels_or_zero(bias_ptr, d, in_d, TYPE)
    weights = projection_of_delta(weight_ptr, d, in_d, channels, RANK, TYPE)

    inputs = (u_ptr, delta_ptr, B_ptr)
    h = tl.load(starts_ptr + at_chunk, mask=in_h, other=0.0)
    first = (chunk % chunks) * CHUNK
    count = tl.minimum(length - first, CHUNK).to(tl.int32)
    spans = (count + SPAN - 1) // SPAN
    first_row = (chunk // chunks) * length + first
    for group in range(0, (count + GROUP - 1) // GROUP):
        tl.store(states_ptr + group * elements + at_h, h, mask=in_h)
        for t in range(group * GROUP, tl.minimum(group * GROUP + GROUP, count)):
            h = next_state(
                h, inputs, A, bias, weights, first_row + t, row_stride, states, channels, n, d, SOFTPLUS, RANK
            )
    # The compiler may hand an element to another thread below.
    tl.debug_barrier()

    g = tl.load(grad_ends_ptr + at_chunk, mask=in_h, other=0.0)
    grad_A = tl.zeros((ROWS, BLOCK_D, LANES), dtype=TYPE)
    grad_D = tl.zeros((1, BLOCK_D, 1), dtype=TYPE)
    grad_bias = tl.zeros((1, BLOCK_D, 1), dtype=TYPE)
    grad_weights = ()
    for _ in tl.static_range(RANK):
        grad_weights = grad_weights + (tl.zeros((1, BLOCK_D, 1), dtype=TYPE),)
    for back in range(0, spans):
        span = spans - 1 - back
        h = tl.load(states_ptr + (span // KEPT) * elements + at_h, mask=in_h, other=0.0)
        for t in range((span // KEPT) * GROUP, span * SPAN):
            h = next_state(
                h, inputs, A, bias, weights, first_row + t, row_stride, states, channels, n, d, SOFTPLUS, RANK
            )
        befores, decays = (), ()
        for t in tl.static_range(SPAN):
            inside = span * SPAN + t < count
            row = first_row + span * SPAN + t
            dt = raw_step(delta_ptr, weights, bias, row, row_stride, channels, d, in_d, inside, RANK, TYPE)
            # Beyond the chunk a step is 0.
            dt = tl.where(inside, softplus(dt) if SOFTPLUS else dt, 0.0)
            u = tl.load(u_ptr + row * channels + d, mask=in_d & inside, other=0.0).to(TYPE)
            B = tl.load(B_ptr + row * row_stride + n, mask=in_n & inside, other=0.0).to(TYPE)
            # A token beyond the end leaves state and gradient alone, even if A is NaN.
            decay = tl.where(inside, tl.exp(dt * A), 1.0)
            befores, decays = befores + (h,), decays + (decay,)
            h = decay * h + (dt * u) * B

        for t in tl.static_range(SPAN):
            inside = span * SPAN + (SPAN - 1 - t) < count
            row = first_row + span * SPAN + (SPAN - 1 - t)
            at_d, at_n, at_grad = row * channels + d, row * row_stride + n, row * ROW + n
            raw = raw_step(delta_ptr, weights, bias, row, row_stride, channels, d, in_d, inside, RANK, TYPE)
            dt = tl.where(inside, softplus(raw) if SOFTPLUS else raw, 0.0)
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
            grad_C = tl.sum(h * gy, axis=1, keep_dims=True)
            tl.store(grad_rows_ptr + at_grad + states, grad_C, mask=in_n & inside)

            x = dt * u
            g += gy * C
            tl.store(grad_rows_ptr + at_grad, tl.sum(g * x, axis=1, keep_dims=True), mask=in_n & inside)
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
            if RANK == 0:
                tl.store(grad_delta_ptr + at_d, grad_dt, mask=in_d & inside)
            else:
                added = ()
                for r in tl.static_range(RANK):
                    at = row * ROW + 2 * states + r + zero
                    tl.store(grad_rows_ptr + at, tl.sum(grad_dt * weights[r], axis=1, keep_dims=True), mask=inside)
                    factor = tl.load(delta_ptr + row * row_stride + r, mask=inside, other=0.0).to(TYPE)
                    added = added + (grad_weights[r] + grad_dt * factor,)
                grad_weights = added
            grad_D += gy * u
            grad_bias += grad_dt

    sums_ptr += chunk * (states + 2 + RANK) * channels
    tl.store(sums_ptr + at_h, grad_A, mask=in_h)
    at_d = elements + d
    tl.store(sums_ptr + at_d, grad_D, mask=in_d)
    tl.store(sums_ptr + at_d + channels, grad_bias, mask=in_d)
    for r in tl.static_range(RANK):
        tl.store(sums_ptr + at_d + (2 + r) * channels, grad_weights[r], mask=in_d)

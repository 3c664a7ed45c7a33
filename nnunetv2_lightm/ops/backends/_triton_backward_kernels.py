"""Triton kernels of the selective scan's backward pass, with the conventions of :mod:`._triton_kernels`."""

from __future__ import annotations

import triton
import triton.language as tl

from ._triton_kernels import channels_or_zero, sigmoid, softplus


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
    bias = channels_or_zero(bias_ptr, d, in_d, grad_y_ptr)
    g = tl.zeros((BLOCK_N, BLOCK_D), dtype=grad_y_ptr.dtype.element_ty)
    dt_sum = tl.zeros((1, BLOCK_D), dtype=grad_y_ptr.dtype.element_ty)

    first = (chunk % chunks) * CHUNK
    count = tl.minimum(length - first, CHUNK).to(tl.int32)
    row = (chunk // chunks) * length + first + count
    for _ in range(0, count):
        row -= 1
        at_d, at_n = row * channels + d, row * states + n
        gy = tl.load(grad_y_ptr + at_d, mask=in_d, other=0.0)
        if z_ptr is not None:
            z = tl.load(z_ptr + at_d, mask=in_d, other=0.0)
            gy *= z * sigmoid(z)
        dt = tl.load(delta_ptr + at_d, mask=in_d, other=0.0) + bias
        if SOFTPLUS:
            dt = softplus(dt)
        C = tl.load(C_ptr + at_n, mask=in_n, other=0.0)
        g = tl.exp(dt * A) * (g + gy * C)
        dt_sum += dt

    tl.store(ends_ptr + chunk * states * channels + at_h, g, mask=in_h)
    tl.store(dt_sums_ptr + chunk * channels + d, dt_sum, mask=in_d)


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
    states_ptr,  # (chunks of this launch, CHUNK, states, channels), work space
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
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    chunk = first_chunk + tl.program_id(0).to(tl.int64)
    n = tl.arange(0, BLOCK_N)[:, None]
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)[None, :]
    in_n, in_d = n < states, d < channels
    in_h = in_n & in_d
    at_h = n * channels + d
    elements = states * channels
    at_chunk = chunk * elements + at_h
    states_ptr += tl.program_id(0).to(tl.int64) * CHUNK * elements
    partial = tl.program_id(1).to(tl.int64) * tokens * states
    A = tl.load(A_ptr + at_h, mask=in_h, other=0.0)
    D = channels_or_zero(D_ptr, d, in_d, u_ptr)
    bias = channels_or_zero(bias_ptr, d, in_d, u_ptr)

    # Forwards again; the state before each token is kept.
    h = tl.load(starts_ptr + at_chunk, mask=in_h, other=0.0)
    first = (chunk % chunks) * CHUNK
    count = tl.minimum(length - first, CHUNK).to(tl.int32)
    row = (chunk // chunks) * length + first
    for t in range(0, count):
        at_d, at_n = row * channels + d, row * states + n
        tl.store(states_ptr + t * elements + at_h, h, mask=in_h)
        u = tl.load(u_ptr + at_d, mask=in_d, other=0.0)
        dt = tl.load(delta_ptr + at_d, mask=in_d, other=0.0) + bias
        if SOFTPLUS:
            dt = softplus(dt)
        B = tl.load(B_ptr + at_n, mask=in_n, other=0.0)
        h = tl.exp(dt * A) * h + (dt * u) * B
        row += 1
    # The compiler may hand an element to another thread below.
    tl.debug_barrier()

    g = tl.load(grad_ends_ptr + at_chunk, mask=in_h, other=0.0)
    grad_A = tl.zeros((BLOCK_N, BLOCK_D), dtype=u_ptr.dtype.element_ty)
    grad_D = tl.zeros((1, BLOCK_D), dtype=u_ptr.dtype.element_ty)
    grad_bias = tl.zeros((1, BLOCK_D), dtype=u_ptr.dtype.element_ty)
    for step in range(0, count):
        row -= 1
        at_d, at_n = row * channels + d, row * states + n
        u = tl.load(u_ptr + at_d, mask=in_d, other=0.0)
        raw = tl.load(delta_ptr + at_d, mask=in_d, other=0.0) + bias
        dt = softplus(raw) if SOFTPLUS else raw
        B = tl.load(B_ptr + at_n, mask=in_n, other=0.0)
        C = tl.load(C_ptr + at_n, mask=in_n, other=0.0)
        gy = tl.load(grad_y_ptr + at_d, mask=in_d, other=0.0)
        before = tl.load(states_ptr + (count - 1 - step) * elements + at_h, mask=in_h, other=0.0)
        x = dt * u
        decay = tl.exp(dt * A)
        after = decay * before + x * B
        if z_ptr is not None:
            z = tl.load(z_ptr + at_d, mask=in_d, other=0.0)
            y = tl.sum(after * C, axis=0, keep_dims=True) + D * u
            gate = sigmoid(z)
            tl.store(grad_z_ptr + at_d, gy * y * gate * (1.0 + z * (1.0 - gate)), mask=in_d)
            gy *= z * gate
        tl.store(grad_C_ptr + partial + at_n, tl.sum(after * gy, axis=1, keep_dims=True), mask=in_n)

        g += gy * C
        tl.store(grad_B_ptr + partial + at_n, tl.sum(g * x, axis=1, keep_dims=True), mask=in_n)
        grad_x = tl.sum(g * B, axis=0, keep_dims=True)
        g *= decay
        exponent = g * before
        grad_A += exponent * dt
        grad_dt = tl.sum(exponent * A, axis=0, keep_dims=True) + grad_x * u
        if SOFTPLUS:
            grad_dt *= sigmoid(raw)
        tl.store(grad_u_ptr + at_d, grad_x * dt + gy * D, mask=in_d)
        tl.store(grad_delta_ptr + at_d, grad_dt, mask=in_d)
        grad_D += gy * u
        grad_bias += grad_dt

    tl.store(grad_A_ptr + at_chunk, grad_A, mask=in_h)
    if D_ptr is not None:
        tl.store(grad_D_ptr + chunk * channels + d, grad_D, mask=in_d)
    if bias_ptr is not None:
        tl.store(grad_bias_ptr + chunk * channels + d, grad_bias, mask=in_d)

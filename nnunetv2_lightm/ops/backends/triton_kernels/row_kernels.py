"""Triton kernels for the RVM layer's steps on each voxel between its products: norms, gate, residual, gradients.

Rows are voxels, (rows, channels), contiguous, of any floating dtype; the parameters and the sums over rows are TYPE, in
which everything is computed. A program processes STEPS tiles of BLOCK_R rows one after the other; a tile has all
channels. The sums over its rows go to ``parts``, (sums, programs, channels), which PyTorch adds up in a fixed order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .scan import sigmoid


@triton.jit
def load_rows(ptr, at, mask, TYPE: tl.constexpr):
    return tl.load(ptr + at, mask=mask, other=0.0).to(TYPE)


@triton.jit
def normalised(x, in_c, channels, EPSILON: tl.constexpr):
    """LayerNorm before its weight and bias, and the reciprocal deviations."""
    mean = tl.sum(x, axis=1, keep_dims=True) / channels
    centred = tl.where(in_c, x - mean, 0.0)
    reciprocal = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=1, keep_dims=True) / channels + EPSILON)
    return centred * reciprocal, reciprocal


@triton.jit
def normalised_backward(grad, normed, reciprocal, in_c, channels):
    """Gradient of the norm's input; grad: gradient of its output before weight and bias."""
    mean = tl.sum(grad, axis=1, keep_dims=True) / channels
    along = tl.sum(grad * normed, axis=1, keep_dims=True) / channels
    return tl.where(in_c, (grad - mean - normed * along) * reciprocal, 0.0)


@triton.jit
def store_sum(parts_ptr, index, values, c, in_c, channels):
    """A program's sum over its rows."""
    at = (index * tl.num_programs(0) + tl.program_id(0)).to(tl.int64) * channels + c
    tl.store(parts_ptr + at, tl.sum(values, axis=0, keep_dims=True), mask=in_c)


@triton.jit(do_not_specialize=["rows"])
def norm(
    x_ptr,
    add_ptr,  # (rows, channels), or None: normed is add + scale * x
    scale_ptr,  # with add_ptr
    weight_ptr,
    bias_ptr,
    gate_ptr,  # (rows, channels), or None: the output is multiplied with SiLU(gate)
    out_ptr,
    rows,
    channels,
    EPSILON: tl.constexpr,
    TYPE: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """LayerNorm of x, or of a residual; of a gated map."""
    c = tl.arange(0, BLOCK_C)[None, :]
    in_c = c < channels
    weight, bias = load_rows(weight_ptr, c, in_c, TYPE), load_rows(bias_ptr, c, in_c, TYPE)
    for step in range(0, STEPS):
        row = (tl.program_id(0).to(tl.int64) * STEPS + step) * BLOCK_R + tl.arange(0, BLOCK_R)[:, None]
        at, mask = row * channels + c, (row < rows) & in_c
        x = load_rows(x_ptr, at, mask, TYPE)
        if add_ptr is not None:
            x = load_rows(add_ptr, at, mask, TYPE) + load_rows(scale_ptr, c, in_c, TYPE) * x
        normed, _ = normalised(x, in_c, channels, EPSILON)
        out = normed * weight + bias
        if gate_ptr is not None:
            gate = load_rows(gate_ptr, at, mask, TYPE)
            out *= gate * sigmoid(gate)
        tl.store(out_ptr + at, out, mask=mask)


@triton.jit(do_not_specialize=["rows"])
def norm_backward(
    grad_ptr,
    x_ptr,
    add_ptr,  # or None, as in norm
    scale_ptr,
    weight_ptr,
    grad_x_ptr,  # added to
    grad_add_ptr,  # written, with add_ptr
    parts_ptr,  # (2, or 3 with add_ptr, programs, channels): of weight, bias, scale
    rows,
    channels,
    EPSILON: tl.constexpr,
    TYPE: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Backward pass of the norm without a gate."""
    c = tl.arange(0, BLOCK_C)[None, :]
    in_c = c < channels
    weight = load_rows(weight_ptr, c, in_c, TYPE)
    grad_weight = tl.zeros((BLOCK_R, BLOCK_C), dtype=TYPE)
    grad_bias = tl.zeros((BLOCK_R, BLOCK_C), dtype=TYPE)
    grad_scale = tl.zeros((BLOCK_R, BLOCK_C), dtype=TYPE)
    for step in range(0, STEPS):
        row = (tl.program_id(0).to(tl.int64) * STEPS + step) * BLOCK_R + tl.arange(0, BLOCK_R)[:, None]
        at, mask = row * channels + c, (row < rows) & in_c
        grad = load_rows(grad_ptr, at, mask, TYPE)
        x = load_rows(x_ptr, at, mask, TYPE)
        total = x
        if add_ptr is not None:
            scale = load_rows(scale_ptr, c, in_c, TYPE)
            total = load_rows(add_ptr, at, mask, TYPE) + scale * x
        normed, reciprocal = normalised(total, in_c, channels, EPSILON)
        grad_weight += grad * normed
        grad_bias += grad
        grad = normalised_backward(grad * weight, normed, reciprocal, in_c, channels)
        if add_ptr is not None:
            tl.store(grad_add_ptr + at, grad, mask=mask)
            grad_scale += grad * x
            grad *= scale
        tl.store(grad_x_ptr + at, load_rows(grad_x_ptr, at, mask, TYPE) + grad, mask=mask)
    store_sum(parts_ptr, 0, grad_weight, c, in_c, channels)
    store_sum(parts_ptr, 1, grad_bias, c, in_c, channels)
    if add_ptr is not None:
        store_sum(parts_ptr, 2, grad_scale, c, in_c, channels)


@triton.jit(do_not_specialize=["rows"])
def gated_norm_backward(
    grad_ptr,
    x_ptr,
    weight_ptr,
    bias_ptr,
    gate_ptr,
    grad_x_ptr,  # written
    grad_gate_ptr,  # written
    parts_ptr,  # (2, programs, channels): of weight and bias
    rows,
    channels,
    EPSILON: tl.constexpr,
    TYPE: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Backward pass of the norm with a gate."""
    c = tl.arange(0, BLOCK_C)[None, :]
    in_c = c < channels
    weight, bias = load_rows(weight_ptr, c, in_c, TYPE), load_rows(bias_ptr, c, in_c, TYPE)
    grad_weight = tl.zeros((BLOCK_R, BLOCK_C), dtype=TYPE)
    grad_bias = tl.zeros((BLOCK_R, BLOCK_C), dtype=TYPE)
    for step in range(0, STEPS):
        row = (tl.program_id(0).to(tl.int64) * STEPS + step) * BLOCK_R + tl.arange(0, BLOCK_R)[:, None]
        at, mask = row * channels + c, (row < rows) & in_c
        grad = load_rows(grad_ptr, at, mask, TYPE)
        gate = load_rows(gate_ptr, at, mask, TYPE)
        normed, reciprocal = normalised(load_rows(x_ptr, at, mask, TYPE), in_c, channels, EPSILON)
        out = normed * weight + bias
        share = sigmoid(gate)
        opened = gate * share
        tl.store(grad_gate_ptr + at, grad * out * share * (1.0 + gate * (1.0 - share)), mask=mask)
        grad *= opened
        grad_weight += grad * normed
        grad_bias += grad
        grad = normalised_backward(grad * weight, normed, reciprocal, in_c, channels)
        tl.store(grad_x_ptr + at, grad, mask=mask)
    store_sum(parts_ptr, 0, grad_weight, c, in_c, channels)
    store_sum(parts_ptr, 1, grad_bias, c, in_c, channels)

"""Triton kernel of the gradient that flows through the selection of delta, B and C, and through the SiLU before it."""

from __future__ import annotations

import triton
import triton.language as tl

from .scan import sigmoid


@triton.jit(do_not_specialize=["rows"])
def through_selection(
    grad_selected_ptr,  # (rows, columns), ``row_stride`` apart
    weight_ptr,  # (columns, channels)
    grad_u_ptr,  # (rows, channels): what reaches u by the scan itself
    convolved_ptr,  # (rows, channels), of which u is the SiLU
    out_ptr,  # like convolved: its gradient
    rows,
    columns,
    channels,
    row_stride,
    TYPE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """``(grad_u + grad_selected @ weight) * SiLU'(convolved)``, computed in TYPE."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)[:, None]
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)[None, :]
    # TensorFloat-32 holds every number in half precision, which Triton's interpreter cannot multiply as it is.
    PRECISION: tl.constexpr = "tf32" if grad_selected_ptr.dtype.element_ty.primitive_bitwidth == 16 else "ieee"
    product = tl.zeros((BLOCK_R, BLOCK_C), dtype=TYPE)
    for first in range(0, columns, BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        mask = (row < rows) & (k < columns)[None, :]
        grad = tl.load(grad_selected_ptr + row * row_stride + k[None, :], mask=mask, other=0.0)
        weight = tl.load(
            weight_ptr + k[:, None] * channels + c, mask=(k < columns)[:, None] & (c < channels), other=0.0
        )
        product = tl.dot(grad.to(TYPE), weight.to(TYPE), product, input_precision=PRECISION, out_dtype=TYPE)
    at, mask = row * channels + c, (row < rows) & (c < channels)
    x = tl.load(convolved_ptr + at, mask=mask, other=0.0).to(TYPE)
    share = sigmoid(x)
    total = tl.load(grad_u_ptr + at, mask=mask, other=0.0).to(TYPE) + product
    tl.store(out_ptr + at, total * share * (1.0 + x * (1.0 - share)), mask=mask)

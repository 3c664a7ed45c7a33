"""Triton kernels of the depthwise convolution, 3 taps on each axis, of channels-last maps.

A map is (images, planes, rows, width, channels); a 2D image is one whose rows are its planes, (images, rows, 1, width,
channels), and has no taps along the rows. A program owns a few positions along the width, at most 64 channels and one
row, several where it sums the weights' gradients, and walks through RUN planes: each plane is read once for the three
planes of output to which it contributes. A thread has two channels, so that the 27 weights of each stay in its
registers while a warp reads whole cache lines.

Taps along the planes are at ``plane + tap - shift``, along rows and width at ``place + tap - 1``; outside are zeros.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .scan import sigmoid

# Neighbours in memory differ in their channel alone: knowing the other sizes makes no kernel faster, and each new one
# would mean compiling it again.
SIZES = ["planes", "out_planes", "rows", "width", "runs", "shift"]


@triton.jit
def weight_of(weight_ptr, tap, c, in_c, TAPS: tl.constexpr, FLIP: tl.constexpr, TYPE: tl.constexpr):
    """A tap's weights for the channels; FLIP: those of the opposite tap."""
    at = TAPS - 1 - tap if FLIP else tap
    return tl.load(weight_ptr + c * TAPS + at, mask=in_c, other=0.0).to(TYPE)


@triton.jit(do_not_specialize=SIZES)
def convolve(
    x_ptr,  # (images, planes, rows, width, channels)
    weight_ptr,  # (channels, 3 * TAPS_Y * 3)
    bias_ptr,  # (channels,), or None
    out_ptr,  # (images, out_planes, rows, width, channels), or None
    activated_ptr,  # like out: its SiLU; or None
    planes,
    out_planes,
    rows,
    width,
    channels,
    runs,  # of RUN output planes
    shift,
    TAPS_Y: tl.constexpr,
    FLIP: tl.constexpr,
    RUN: tl.constexpr,
    TYPE: tl.constexpr,
    BLOCK_X: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The convolution; with FLIP and the opposite shift the gradient of its input."""
    program = tl.program_id(0).to(tl.int64)
    row = (program % rows).to(tl.int32)
    run = ((program // rows) % runs).to(tl.int32)
    image = program // (rows * runs)
    x = tl.program_id(1) * BLOCK_X + tl.arange(0, BLOCK_X)[:, None]
    c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)[None, :]
    in_c = c < channels
    TAPS: tl.constexpr = 9 * TAPS_Y
    if bias_ptr is None:
        bias = tl.zeros((1, BLOCK_C), dtype=TYPE)
    else:
        bias = tl.load(bias_ptr + c, mask=in_c, other=0.0).to(TYPE)

    weights = ()
    for tap in tl.static_range(TAPS):
        weights = weights + (weight_of(weight_ptr, tap, c, in_c, TAPS, FLIP, TYPE),)

    before = tl.zeros((BLOCK_X, BLOCK_C), dtype=TYPE)  # output of the plane before the one being read
    here = tl.zeros((BLOCK_X, BLOCK_C), dtype=TYPE)
    first = run * RUN
    last = tl.minimum(first + RUN, out_planes)
    # Output plane p reads the planes p - shift, p - shift + 1, p - shift + 2.
    for plane in range(first - shift, last - shift + 2):
        after = tl.zeros((BLOCK_X, BLOCK_C), dtype=TYPE)
        in_plane = (plane >= 0) & (plane < planes)
        for tap_y in tl.static_range(TAPS_Y):
            y = row + tap_y - TAPS_Y // 2
            in_row = in_plane & (y >= 0) & (y < rows)
            base = ((image * planes + plane) * rows + y) * width
            for tap_x in tl.static_range(3):
                place = x + (tap_x - 1)
                mask = in_row & (place >= 0) & (place < width) & in_c
                value = tl.load(x_ptr + (base + place) * channels + c, mask=mask, other=0.0).to(TYPE)
                before += value * weights[6 * TAPS_Y + tap_y * 3 + tap_x]
                here += value * weights[3 * TAPS_Y + tap_y * 3 + tap_x]
                after += value * weights[tap_y * 3 + tap_x]
        out_plane = plane + shift - 2
        if out_plane >= first:
            at = (((image * out_planes + out_plane) * rows + row) * width + x) * channels + c
            value = before + bias
            mask = (x < width) & in_c
            if out_ptr is not None:
                tl.store(out_ptr + at, value, mask=mask)
            if activated_ptr is not None:
                # SiLU of the rounded value, so that the result is the same whether or not that is stored.
                value = value.to(activated_ptr.dtype.element_ty).to(TYPE)
                tl.store(activated_ptr + at, value * sigmoid(value), mask=mask)
        before = here
        here = after


@triton.jit(do_not_specialize=SIZES)
def weight_gradient(
    grad_ptr,  # (images, out_planes, rows, width, channels)
    x_ptr,  # (images, planes, rows, width, channels)
    parts_ptr,  # (programs 0, programs 1, 3 * TAPS_Y * 3 + 1, channels), written, to be summed; the bias's comes last
    planes,
    out_planes,
    rows,
    width,
    channels,
    runs,
    shift,
    TAPS_Y: tl.constexpr,
    ROWS: tl.constexpr,
    RUN: tl.constexpr,
    TYPE: tl.constexpr,
    BLOCK_X: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Each program's share of the gradients of weights and bias. Its part of the map stays in the cache."""
    program = tl.program_id(0).to(tl.int64)
    blocks = (rows + ROWS - 1) // ROWS
    first_row = (program % blocks).to(tl.int32) * ROWS
    last_row = tl.minimum(first_row + ROWS, rows)
    run = ((program // blocks) % runs).to(tl.int32)
    image = program // (blocks * runs)
    x = tl.program_id(1) * BLOCK_X + tl.arange(0, BLOCK_X)[:, None]
    c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)[None, :]
    in_c = c < channels
    inside = (x < width) & in_c
    TAPS: tl.constexpr = 9 * TAPS_Y
    first = run * RUN
    last = tl.minimum(first + RUN, out_planes)
    parts_ptr += (program * tl.num_programs(1) + tl.program_id(1)) * (TAPS + 1) * channels

    bias = tl.zeros((BLOCK_X, BLOCK_C), dtype=TYPE)
    for tap_z in tl.static_range(3):
        for tap_y in tl.static_range(TAPS_Y):
            left = tl.zeros((BLOCK_X, BLOCK_C), dtype=TYPE)
            middle = tl.zeros((BLOCK_X, BLOCK_C), dtype=TYPE)
            right = tl.zeros((BLOCK_X, BLOCK_C), dtype=TYPE)
            for row in range(first_row, last_row):
                y = row + tap_y - TAPS_Y // 2
                for out_plane in range(first, last):
                    plane = out_plane + tap_z - shift
                    at = (((image * out_planes + out_plane) * rows + row) * width + x) * channels + c
                    grad = tl.load(grad_ptr + at, mask=inside, other=0.0).to(TYPE)
                    if tap_z == 0 and tap_y == 0:
                        bias += grad
                    in_row = (plane >= 0) & (plane < planes) & (y >= 0) & (y < rows) & in_c
                    base = ((image * planes + plane) * rows + y) * width + x
                    at = (base - 1) * channels + c
                    left += grad * tl.load(x_ptr + at, mask=in_row & (x >= 1) & (x <= width), other=0.0).to(TYPE)
                    at = base * channels + c
                    middle += grad * tl.load(x_ptr + at, mask=in_row & (x < width), other=0.0).to(TYPE)
                    at = (base + 1) * channels + c
                    right += grad * tl.load(x_ptr + at, mask=in_row & (x + 1 < width), other=0.0).to(TYPE)
            part = parts_ptr + (tap_z * TAPS_Y + tap_y) * 3 * channels + c
            tl.store(part, tl.sum(left, axis=0, keep_dims=True), mask=in_c)
            tl.store(part + channels, tl.sum(middle, axis=0, keep_dims=True), mask=in_c)
            tl.store(part + 2 * channels, tl.sum(right, axis=0, keep_dims=True), mask=in_c)
    tl.store(parts_ptr + TAPS * channels + c, tl.sum(bias, axis=0, keep_dims=True), mask=in_c)

"""Triton kernels of the max-pooling of channels-last maps, (images, planes, rows, width, channels).

A program owns a few output voxels and up to 64 channels; each input voxel is read or written once. A 2D image is one
whose rows are its planes, with a single row in each, as in :mod:`.depthwise_kernels`.
"""

from __future__ import annotations

import triton
import triton.language as tl

# As in :mod:`.depthwise_kernels`, channels alone are worth compiling for.
SIZES = ["voxels", "out_planes", "out_rows", "out_width", "planes", "rows", "width"]


@triton.jit
def first_of_window(
    row, out_planes, out_rows, out_width, planes, rows, width, WZ: tl.constexpr, WY: tl.constexpr, WX: tl.constexpr
):
    """The input voxel that an output voxel's window starts at."""
    x = row % out_width
    row = row // out_width
    y = row % out_rows
    row = row // out_rows
    z = row % out_planes
    return (((row // out_planes) * planes + z * WZ) * rows + y * WY) * width + x * WX


@triton.jit(do_not_specialize=SIZES)
def max_pool(
    x_ptr,
    out_ptr,
    place_ptr,  # like out, uint8: which element of the window is the maximum; None: not wanted
    voxels,  # of the output, all images
    out_planes,
    out_rows,
    out_width,
    planes,
    rows,
    width,
    channels,
    WZ: tl.constexpr,
    WY: tl.constexpr,
    WX: tl.constexpr,
    TYPE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The first of equal maxima; the last NaN."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)[:, None]
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)[None, :]
    mask = (row < voxels) & (c < channels)
    first = first_of_window(row, out_planes, out_rows, out_width, planes, rows, width, WZ, WY, WX)
    best = tl.load(x_ptr + first * channels + c, mask=mask, other=0.0).to(TYPE)
    place = tl.zeros((BLOCK_R, BLOCK_C), dtype=tl.int32)
    for index in tl.static_range(1, WZ * WY * WX):
        at = first + ((index // (WY * WX)) * rows + (index // WX) % WY) * width + index % WX
        value = tl.load(x_ptr + at * channels + c, mask=mask, other=0.0).to(TYPE)
        better = (value > best) | (value != value)
        best = tl.where(better, value, best)
        place = tl.where(better, index, place)
    tl.store(out_ptr + row * channels + c, best, mask=mask)
    if place_ptr is not None:
        tl.store(place_ptr + row * channels + c, place.to(tl.uint8), mask=mask)


@triton.jit(do_not_specialize=SIZES)
def max_pool_backward(
    grad_ptr,  # of the output
    place_ptr,
    grad_x_ptr,  # written wherever a window lies
    voxels,
    out_planes,
    out_rows,
    out_width,
    planes,
    rows,
    width,
    channels,
    WZ: tl.constexpr,
    WY: tl.constexpr,
    WX: tl.constexpr,
    TYPE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The gradient goes to the maximum, zero to the rest of its window."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)[:, None]
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)[None, :]
    mask = (row < voxels) & (c < channels)
    first = first_of_window(row, out_planes, out_rows, out_width, planes, rows, width, WZ, WY, WX)
    grad = tl.load(grad_ptr + row * channels + c, mask=mask, other=0.0).to(TYPE)
    place = tl.load(place_ptr + row * channels + c, mask=mask, other=0).to(tl.int32)
    for index in tl.static_range(WZ * WY * WX):
        at = first + ((index // (WY * WX)) * rows + (index // WX) % WY) * width + index % WX
        tl.store(grad_x_ptr + at * channels + c, tl.where(place == index, grad, 0.0), mask=mask)

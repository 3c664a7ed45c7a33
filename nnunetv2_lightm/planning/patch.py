"""Patch size and strides for LightMUNet: nnU-Net's rules, but at most three poolings instead of as many as fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props, pad_shape

POOLINGS = 3
# Voxels of the largest patch to consider, as in nnU-Net's ExperimentPlanner.
LARGEST_PATCH = {2: 2048**2, 3: 256**3}
# Pooling leaves at least this many voxels on each axis: ExperimentPlanner.UNet_featuremap_min_edge_length.
MIN_EDGE = 4


@dataclass(frozen=True)
class Patch:
    """A patch and the poolings that fit it.

    Attributes:
        size: Voxels on each axis.
        strides: Strides of the four resolutions; the first is 1 on each axis.
    """

    size: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]

    @property
    def divisors(self) -> tuple[int, ...]:
        """The divisor of each axis."""
        return tuple(math.prod(steps) for steps in zip(*self.strides))


def padded_patch(size: Sequence[float], spacing: Sequence[float]) -> Patch:
    """The smallest patch of at least this size that is divisible by its poolings.

    nnU-Net pools an axis while it is long enough and its voxels are at most twice as large as the smallest. Three such
    steps are LightMUNet's Encoder Blocks; where fewer fit, the last blocks do not pool.
    """
    strides = get_pool_and_conv_props(spacing, size, MIN_EDGE, 999999)[1][: POOLINGS + 1]
    strides += ((1,) * len(size),) * (POOLINGS + 1 - len(strides))
    patch = Patch(tuple(map(int, size)), strides)
    return Patch(tuple(map(int, pad_shape(size, list(patch.divisors)))), strides)


def largest_patch(
    spacing: Sequence[float], median_shape: Sequence[float], fits: Callable[[Patch], bool]
) -> Patch | None:
    """The largest patch that fits, found as nnU-Net's ExperimentPlanner does.

    It starts at the median shape, or at a patch of the data's aspect ratio if that is smaller, and shortens the axis
    that covers most of the median shape.

    Args:
        spacing: Target spacing of the data, in mm.
        median_shape: Median shape of the cases at this spacing, in voxels.
        fits: Whether the memory suffices.

    Returns: None: not even the smallest one fits.
    """
    patch = padded_patch(_first_size(spacing, median_shape), spacing)
    while not fits(patch):
        smaller = [_shortened(patch, axis, spacing) for axis in range(len(patch.size))]
        covered = [size / whole for size, whole in zip(patch.size, median_shape)]
        candidates = [(covered[axis], axis) for axis, one in enumerate(smaller) if one is not None]
        if not candidates:
            return None
        patch = smaller[max(candidates)[1]]
    return patch


def _first_size(spacing: Sequence[float], median_shape: Sequence[float]) -> list[float]:
    inverse = [1 / step for step in spacing]
    dims = len(spacing)
    scale = (LARGEST_PATCH[dims] / math.prod(inverse)) ** (1 / dims)
    return [min(round(scale * step), whole) for step, whole in zip(inverse, median_shape)]


def _shortened(patch: Patch, axis: int, spacing: Sequence[float]) -> Patch | None:
    """The next smaller patch along an axis; None: there is none.

    A shorter axis may be pooled less often and so need a smaller divisor. Then a longer patch is valid as well.
    """
    size = list(patch.size)
    size[axis] -= patch.divisors[axis]
    if size[axis] < MIN_EDGE:
        return None
    divisor = padded_patch(size, spacing).divisors[axis]
    size[axis] = patch.size[axis] - divisor
    return padded_patch(size, spacing)

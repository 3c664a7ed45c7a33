"""Patch and strides: divisible, within the median shape, with the resolutions that the network has."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunetv2_lightm.planning.patch import MIN_EDGE, largest_patch, padded_patch


def at_most(voxels):
    return lambda patch: math.prod(patch.size) <= voxels


@pytest.mark.parametrize(
    ("size", "spacing", "padded", "pooling"),
    [
        # Isotropic: each axis three times.
        ((60, 61, 62), (1, 1, 1), (64, 64, 64), [(2, 2, 2)] * 3),
        # A thin axis waits until the others are as coarse, within a factor of two.
        ((19, 190, 190), (3.6, 0.6, 0.6), (20, 192, 192), [(1, 2, 2), (1, 2, 2), (2, 2, 2)]),
        ((9, 100, 100), (10, 1, 1), (9, 104, 104), [(1, 2, 2)] * 3),
        # Too short for three, or for any.
        ((17, 64, 64), (1, 1, 1), (20, 64, 64), [(2, 2, 2), (2, 2, 2), (1, 2, 2)]),
        ((7, 6, 5), (1, 1, 1), (7, 6, 5), [(1, 1, 1)] * 3),
        ((500, 300), (1, 1), (504, 304), [(2, 2)] * 3),
    ],
)
def test_strides_and_padding(size, spacing, padded, pooling):
    patch = padded_patch(size, spacing)
    assert patch.size == padded
    assert [tuple(stride) for stride in patch.strides] == [(1,) * len(size), *pooling]


def test_whole_median_shape_if_it_fits():
    assert largest_patch((1, 1, 1), (35.5, 50, 36), at_most(10**9)).size == (40, 56, 40)


def test_aspect_ratio_is_that_of_the_median_shape():
    patch = largest_patch((1, 1, 1), (400, 200, 200), at_most(80**3))
    assert patch.size[0] == pytest.approx(2 * patch.size[1], rel=0.15)
    assert patch.size[1] == pytest.approx(patch.size[2], rel=0.15)


def test_first_patch_is_no_larger_than_nnunets():
    assert largest_patch((1, 1, 1), (1000, 1000, 1000), at_most(10**12)).size == (256, 256, 256)
    assert largest_patch((2, 1), (9000, 9000), at_most(10**12)).size == (1448, 2896)


def test_nothing_fits():
    assert largest_patch((1, 1, 1), (64, 64, 64), at_most(MIN_EDGE**3 - 1)) is None
    assert largest_patch((5, 1, 1), (2, 64, 64), at_most(2 * MIN_EDGE**2)).size == (2, MIN_EDGE, MIN_EDGE)


@given(
    spacing=st.lists(st.floats(0.2, 10), min_size=2, max_size=3),
    shape=st.lists(st.integers(4, 600), min_size=3, max_size=3),
    voxels=st.integers(300, 10**7),
)
def test_every_plan_is_valid_and_uses_its_room(spacing, shape, voxels):
    shape = shape[: len(spacing)]
    patch = largest_patch(spacing, shape, at_most(voxels))
    assert math.prod(patch.size) <= voxels
    assert all(size % divisor == 0 for size, divisor in zip(patch.size, patch.divisors))
    assert len(patch.strides) == 4 and set(patch.strides[0]) == {1}
    assert all(size < whole + 8 for size, whole in zip(patch.size, shape))
    assert all(min(MIN_EDGE, whole) <= size for size, whole in zip(patch.size, shape))
    assert patch == padded_patch(patch.size, spacing)
    # One step more along one of the axes would have been too large, unless the median shape is covered.
    whole = largest_patch(spacing, shape, at_most(10**12))
    grown = [patch.size[i] + 8 for i in range(len(shape))]
    assert patch.size == whole.size or math.prod(grown) > voxels

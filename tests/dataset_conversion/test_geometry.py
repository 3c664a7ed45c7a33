"""Geometries: shifts, repair, resampling."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_lightm.dataset_conversion._errors import CaseRefused
from nnunetv2_lightm.dataset_conversion._geometry import adopt_geometry, resample_to_shape
from nnunetv2_lightm.images.geometry import grid_of, largest_shift_mm, rounding_mm


def volume(*, shape=(4, 5, 6), spacing=(0.5, 0.5, 2.0), origin=(1.0, 2.0, 3.0), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1)):
    image = sitk.GetImageFromArray(np.zeros(shape, np.int16))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction)
    return image


def extent_mm(image: sitk.Image) -> np.ndarray:
    """The outer edges, in mm."""
    corners = ([-0.5] * 3, [n - 0.5 for n in image.GetSize()])
    return np.array([image.TransformContinuousIndexToPhysicalPoint(corner) for corner in corners])


def test_voxel_to_mm_is_itks():
    image = volume(direction=(0, -1, 0, 1, 0, 0, 0, 0, 1))
    matrix = grid_of(image).voxel_to_mm
    assert matrix @ (3, 2, 1, 1) == pytest.approx((*image.TransformIndexToPhysicalPoint((3, 2, 1)), 1))


def test_shift_is_that_of_the_worst_corner():
    one, other = volume(), volume(spacing=(0.5, 0.5, 2.1))
    assert largest_shift_mm(grid_of(one).voxel_to_mm, grid_of(other).voxel_to_mm, one.GetSize()) == pytest.approx(
        3 * 0.1
    )
    assert rounding_mm(one.GetSpacing()) == 0.125


@pytest.mark.parametrize("change", [{"origin": (1.01, 2, 3)}, {"spacing": (0.501, 0.5, 2.0)}, {"origin": (1, 2, 3.1)}])
def test_rounding_is_repaired_and_the_image_wins(change):
    image, label = volume(), volume(**change)
    assert "mm" in adopt_geometry(label, image)
    assert np.array_equal(grid_of(label).voxel_to_mm, grid_of(image).voxel_to_mm)


def test_equal_geometries_need_no_repair():
    assert adopt_geometry(volume(origin=(1.0 + 1e-9, 2, 3)), volume()) is None


@pytest.mark.parametrize(
    "change",
    [
        {"origin": (1.25, 2, 3)},
        {"spacing": (0.6, 0.5, 2.0)},
        {"direction": (-1, 0, 0, 0, 1, 0, 0, 0, 1)},
        {"direction": (0, 1, 0, 1, 0, 0, 0, 0, -1)},
    ],
    ids=["half a voxel", "spacing", "flipped", "axes swapped"],
)
def test_real_differences_are_refused_with_both_geometries(change):
    with pytest.raises(CaseRefused, match=r"image origin .* spacing .* direction .*; label origin .* direction"):
        adopt_geometry(volume(**change), volume())


def test_other_shapes_are_refused_with_both():
    with pytest.raises(CaseRefused, match=r"image \(4, 5, 6\), label \(5, 4, 6\)"):
        adopt_geometry(volume(shape=(5, 4, 6)), volume())


@pytest.mark.parametrize("shape", [(8, 8, 8), (2, 3, 3), (4, 5, 6), (1, 1, 1), (7, 2, 11)])
def test_resampling_keeps_extent_and_dtype(shape):
    image = volume(direction=(0, -1, 0, 1, 0, 0, 0, 0, 1))
    resampled = resample_to_shape(image, shape, is_label=False)
    assert resampled.GetSize() == shape[::-1]
    assert resampled.GetPixelID() == image.GetPixelID()
    assert extent_mm(resampled) == pytest.approx(extent_mm(image))


def test_resampling_to_the_same_shape_changes_nothing():
    image = volume()
    values = np.random.default_rng(0).integers(-1000, 1000, (4, 5, 6)).astype(np.int16)
    same = sitk.GetImageFromArray(values)
    same.CopyInformation(image)
    for is_label in (True, False):
        assert np.array_equal(sitk.GetArrayFromImage(resample_to_shape(same, (4, 5, 6), is_label=is_label)), values)


def test_enlarging_is_linear_and_rounds():
    ramp = sitk.GetImageFromArray(np.tile(np.arange(-8, 8, dtype=np.int16) * 10, (2, 2, 1)))
    resampled = sitk.GetArrayFromImage(resample_to_shape(ramp, (2, 2, 20), is_label=False))
    old_index = ((np.arange(20) + 0.5) * 16 / 20 - 0.5).clip(0, 15)
    # Truncation towards zero would be off for the negative ones.
    assert np.array_equal(resampled[0, 0], np.rint((old_index - 8) * 10))
    assert resampled.dtype == np.int16


@pytest.mark.parametrize(("shape", "axis"), [((2, 3, 512), 2), ((2, 512, 3), 1), ((512, 2, 3), 0)])
@pytest.mark.parametrize("new", [54, 100, 256])
def test_stripes_finer_than_the_new_voxels_become_gray(shape, axis, new):
    """Linear interpolation between two of 9.5 pixels shows them as coarser stripes that are not there."""
    stripes = np.where(np.indices(shape)[axis] % 2, 1000, 0).astype(np.int16)
    target = tuple(new if i == axis else length for i, length in enumerate(shape))
    resampled = sitk.GetArrayFromImage(resample_to_shape(sitk.GetImageFromArray(stripes), target, is_label=False))
    assert resampled.shape == target
    # A voxel that covers n.5 stripes is off by at most half a stripe.
    assert np.abs(resampled - 500).max() <= 500 / (shape[axis] / new)


def test_shrinking_takes_the_mean_of_all_voxels_along_each_axis_that_shrinks():
    values = np.random.default_rng(0).normal(0, 100, (12, 20, 30)).astype(np.float32)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((0.5, 0.7, 2.0))
    resampled = resample_to_shape(image, (6, 20, 10), is_label=False)
    expected = values.reshape(6, 2, 20, 10, 3).mean(axis=(1, 4))
    assert sitk.GetArrayFromImage(resampled) == pytest.approx(expected, abs=1e-3)
    assert extent_mm(resampled) == pytest.approx(extent_mm(image))


def test_one_axis_may_shrink_and_another_grow():
    values = np.random.default_rng(0).normal(0, 100, (8, 8)).astype(np.float32)
    resampled = sitk.GetArrayFromImage(resample_to_shape(sitk.GetImageFromArray(values), (4, 16), is_label=False))
    halved = values.reshape(4, 2, 8).mean(axis=1)
    expected = np.stack([np.interp((np.arange(16) + 0.5) / 2 - 0.5, np.arange(8), row) for row in halved])
    assert resampled == pytest.approx(expected, abs=1e-3)


def test_labels_keep_their_values():
    values = np.random.default_rng(0).choice([0, 2], (6, 6, 6)).astype(np.uint8)
    resampled = sitk.GetArrayFromImage(resample_to_shape(sitk.GetImageFromArray(values), (9, 4, 13), is_label=True))
    assert set(np.unique(resampled)) == {0, 2}


def test_images_are_resampled_alike_in_2d():
    image = sitk.GetImageFromArray(np.arange(12, dtype=np.uint16).reshape(3, 4) * 1000)
    assert sitk.GetArrayFromImage(resample_to_shape(image, (6, 8), is_label=False)).shape == (6, 8)

"""Voxels of several numbers: nnU-Net's readers take these for an axis, and would pass on nonsense."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile

from nnunetv2_lightm.images.check import check_image, check_label
from nnunetv2_lightm.images.faults import ImageFault


@pytest.mark.parametrize("check", [check_image, check_label])
@pytest.mark.parametrize("ending", [".mha", ".nrrd", ".nii.gz"])
def test_vectors_are_refused(tmp_path, ending, check):
    path = tmp_path / f"case_0000{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((4, 5, 6, 3), np.int16), isVector=True), str(path))
    with pytest.raises(ImageFault, match="has 3 numbers per voxel .* CASE_0000, CASE_0001"):
        check(path)


def test_colours_of_a_slice_are_refused(tmp_path):
    """nnU-Net would read a volume of 5 x 6 x 3 voxels."""
    path = tmp_path / "case_0000.mha"
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((5, 6, 3), np.uint8), isVector=True), str(path))
    with pytest.raises(ImageFault, match="has 3 numbers per voxel"):
        check_image(path)


def test_complex_numbers_are_refused(tmp_path):
    nrrd, tif, real = tmp_path / "case_0000.nrrd", tmp_path / "case_0000.tif", np.ones((4, 5, 6), np.float32)
    itk = sitk.GetImageFromArray(real)
    sitk.WriteImage(sitk.RealAndImaginaryToComplex(itk, itk), str(nrrd))
    tifffile.imwrite(tif, real.astype(np.complex64))
    for path in (nrrd, tif):
        with pytest.raises(ImageFault, match="has 2 numbers per voxel"):
            check_image(path)


@pytest.mark.parametrize("ending", [".nrrd", ".nii.gz"])
def test_a_series_and_vectors_of_one_number_are_not(tmp_path, ending):
    path = tmp_path / f"case_0000{ending}"
    series = sitk.JoinSeries([sitk.GetImageFromArray(np.ones((4, 5, 6), np.int16))] * 2)
    sitk.WriteImage(series, str(path))
    assert check_image(path).channels == 2
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((4, 5, 6, 1), np.int16), isVector=True), str(path))
    assert check_label(path).values == (1,)

"""Volumes: complete or refused, stored in int16, float32 or uint8."""

from __future__ import annotations

import gzip
import struct

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_lightm.dataset_conversion._errors import CaseRefused
from nnunetv2_lightm.dataset_conversion._nifti import check_ct, check_label, read_volume


def read(file):
    """The image and its repairs."""
    volume = read_volume(file)
    return volume.image, volume.repairs


@pytest.fixture(params=[".nii", ".nii.gz"])
def file(request, tmp_path, lits):
    return lits.write(lits.image(1), f"volume-1{request.param}")


def test_a_whole_volume_is_read(file, lits):
    volume, repairs = read(file)
    assert np.array_equal(sitk.GetArrayFromImage(volume), sitk.GetArrayFromImage(lits.image(1)))
    assert volume.GetSpacing() == pytest.approx(lits.image(1).GetSpacing())
    assert repairs == []


@pytest.mark.parametrize("kept", [0.99, 0.5, 0.1])
def test_truncated_files_are_refused(file, kept):
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(CaseRefused, match=r"volume-1\.nii.* (is truncated|cannot be read)"):
        read_volume(file)


def test_a_gzip_that_lacks_only_its_checksum_is_refused(lits):
    file = lits.write(lits.image(1), "volume-1.nii.gz")
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(CaseRefused, match="truncated"):
        read_volume(file)


def test_a_flipped_bit_is_refused(lits):
    file = lits.write(lits.image(1), "volume-1.nii.gz")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(CaseRefused, match="cannot be read"):
        read_volume(file)


def test_empty_files_are_refused(file):
    file.write_bytes(b"")
    with pytest.raises(CaseRefused, match="is empty"):
        read_volume(file)


def test_a_gzip_of_nothing_is_refused(lits):
    file = lits.folder / "volume-1.nii.gz"
    file.write_bytes(gzip.compress(b""))
    with pytest.raises(CaseRefused, match="cannot be read"):
        read_volume(file)


def test_other_files_are_refused(file):
    file.write_bytes(b"no volume at all" * 100)
    with pytest.raises(CaseRefused, match="cannot be read"):
        read_volume(file)


def test_an_uncompressed_file_named_gz_is_refused(lits):
    file = lits.write(lits.image(1), "volume-1.nii")
    with pytest.raises(CaseRefused, match="cannot be read"):
        read_volume(file.rename(file.with_suffix(".nii.gz")))


def test_a_fourth_axis_of_length_1_does_not_matter(lits):
    file = lits.write(sitk.JoinSeries([lits.image(1)]), "volume-1.nii.gz")
    volume, _ = read(file)
    assert np.array_equal(sitk.GetArrayFromImage(volume), sitk.GetArrayFromImage(lits.image(1)))
    assert volume.GetDirection() == pytest.approx(lits.image(1).GetDirection())


def test_a_series_and_channels_are_refused(lits):
    series = lits.write(sitk.JoinSeries([lits.image(1), lits.image(2)]), "volume-1.nii.gz")
    colours = lits.write(sitk.Compose([sitk.Cast(lits.image(1), sitk.sitkUInt8)] * 3), "volume-2.nii.gz")
    plane = lits.write(lits.image(1)[:, :, 0], "volume-3.nii.gz")
    for file in (series, colours, plane):
        with pytest.raises(CaseRefused, match=f"{file.name} is not a volume of one channel"):
            read_volume(file)


def shear(file, share: float) -> None:
    """Rewrite a .nii so that only its sform counts, with x and y no longer at right angles."""
    content = bytearray(file.read_bytes())
    struct.pack_into("<3f", content, 80, 0.7, 0.7 * np.hypot(1, share), 2.5)
    struct.pack_into("<2h", content, 252, 0, 1)
    rows = [[0.7, 0.7 * share, 0, -5], [0, 0.7, 0, 6], [0, 0, 2.5, 7]]
    struct.pack_into("<12f", content, 280, *np.ravel(rows))
    file.write_bytes(bytes(content))


def test_axes_off_right_angles_by_rounding_are_straightened(lits):
    file = lits.write(lits.image(1), "volume-1.nii")
    shear(file, 1e-3)
    with pytest.raises(RuntimeError, match="orthonormal"):
        sitk.ReadImage(str(file))
    volume, repairs = read(file)
    assert "straightened" in repairs[0]
    assert np.array_equal(sitk.GetArrayFromImage(volume), sitk.GetArrayFromImage(lits.image(1)))
    # NIfTI's x and y point the other way than ITK's.
    assert volume.GetOrigin() == pytest.approx((5, -6, 7))
    assert volume.GetSpacing() == pytest.approx((0.7, 0.7, 2.5), abs=1e-5)
    assert volume.GetDirection() == pytest.approx((-1, 0, 0, 0, -1, 0, 0, 0, 1), abs=1e-3)


def test_foreign_byte_order_is_read(lits, tmp_path):
    values = sitk.GetArrayFromImage(lits.image(1)).T
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    for name, affine in (("straight", np.eye(4)), ("slanted", np.eye(4) + np.eye(4, k=1) * [0, 1e-3, 0, 0])):
        image = nibabel.Nifti1Image(values, None, header)
        image.header.set_sform(affine, 1)
        nibabel.save(image, tmp_path / f"{name}.nii")
        volume, repairs = read(tmp_path / f"{name}.nii")
        assert np.array_equal(sitk.GetArrayFromImage(volume).T, values)
        assert bool(repairs) == (name == "slanted")


def test_slanted_axes_are_refused(lits):
    file = lits.write(lits.image(1), "volume-1.nii")
    shear(file, 0.2)
    with pytest.raises(CaseRefused, match="not at right angles.* mm"):
        read_volume(file)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64, np.float64])
def test_odd_dtypes_become_int16_without_loss(lits, dtype):
    values = np.abs(sitk.GetArrayFromImage(lits.image(1))) % 200
    image, repairs, _ = check_ct(lits.as_volume(values.astype(dtype)), "x")
    assert sitk.GetArrayViewFromImage(image).dtype == np.int16
    assert np.array_equal(sitk.GetArrayFromImage(image), values)
    assert repairs == [f"x: {np.dtype(dtype).name} stored as int16"]


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_usual_dtypes_stay(lits, dtype):
    image, repairs, notes = check_ct(lits.image(1, dtype=dtype), "x")
    assert sitk.GetArrayViewFromImage(image).dtype == dtype
    assert repairs == notes == []


@pytest.mark.parametrize("values", [np.array([0.5, 1]), np.array([0, 40000]), np.array([0, 40000], np.uint16)])
def test_what_int16_cannot_hold_becomes_float32(values):
    image, repairs, _ = check_ct(sitk.GetImageFromArray(values.reshape(1, 1, -1)), "x")
    assert np.array_equal(sitk.GetArrayFromImage(image).ravel(), values)
    assert "stored as float32" in repairs[0]


def test_what_float32_cannot_hold_is_refused():
    with pytest.raises(CaseRefused, match="1e.300"):
        check_ct(sitk.GetImageFromArray(np.array([[[0, 1e300]]])), "x")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_nan_and_inf_are_refused(lits, bad, dtype, ending):
    values = sitk.GetArrayFromImage(lits.image(1, dtype=dtype))
    values[0, 0, :2] = bad
    file = lits.write(lits.as_volume(values), f"volume-1{ending}")
    # Why the bytes are looked at: SimpleITK hides them.
    assert np.isfinite(sitk.GetArrayFromImage(sitk.ReadImage(str(file)))).all()
    with pytest.raises(CaseRefused, match=f"volume-1{ending} has 2 NaN or infinite"):
        read_volume(file)


def test_bytes_behind_the_volume_do_not_matter(lits):
    file = lits.write(lits.image(1, dtype=np.float32), "volume-1.nii")
    file.write_bytes(file.read_bytes() + np.float32(np.nan).tobytes() * 10)
    assert np.array_equal(sitk.GetArrayFromImage(read(file)[0]), sitk.GetArrayFromImage(lits.image(1)))


def test_a_constant_image_is_noted(lits):
    assert check_ct(lits.as_volume(np.full((2, 2, 2), -1024, np.int16)), "x")[2] == ["x is constant (-1024)"]


def test_float_labels_become_uint8(lits):
    label, repairs, present = check_label(lits.label(1, dtype=np.float32), "x", (0, 1, 2))
    assert np.array_equal(sitk.GetArrayFromImage(label), sitk.GetArrayFromImage(lits.label(1)))
    assert sitk.GetArrayViewFromImage(label).dtype == np.uint8
    assert repairs == ["x: float32 stored as uint8"]
    assert present == {0, 1, 2}


@pytest.mark.parametrize("bad", [0.5, 1.999])
def test_interpolated_labels_are_refused(lits, bad):
    values = sitk.GetArrayFromImage(lits.label(1, dtype=np.float64))
    values[0, 0, 0] = bad
    with pytest.raises(CaseRefused, match=f"x has values that are not integers, such as {bad:g}"):
        check_label(lits.as_volume(values), "x", (0, 1, 2))


@pytest.mark.parametrize("bad", [3, -1, 255])
def test_other_label_values_are_refused_by_name(lits, bad):
    values = sitk.GetArrayFromImage(lits.label(1, dtype=np.int16))
    values[0, 0, 0] = bad
    with pytest.raises(CaseRefused, match=f"x has the values {bad}; allowed are 0, 1, 2"):
        check_label(lits.as_volume(values), "x", (0, 1, 2))

"""NIfTI headers that contradict themselves or the file, and values that readers hide."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_lightm.images.check import check_image, check_label
from nnunetv2_lightm.images.faults import ImageFault

from .nifti_bytes import BITPIX, DATATYPE, DIM, MAGIC, SCALING, VOX_OFFSET, edit, write_nifti

VALUES = np.random.default_rng(0).integers(-1000, 1000, (6, 5, 4)).astype(np.int16)
NAN, INF = float("nan"), float("inf")


@pytest.fixture(params=["image.nii", "image.nii.gz"])
def path(request, tmp_path):
    return write_nifti(tmp_path / request.param, VALUES, sform=np.diag([0.7, 0.7, 1.6, 1]), pixdim=(0.7, 0.7, 1.6))


def test_a_sound_file_passes(path):
    facts = check_image(path)
    assert facts.shape == (4, 5, 6) and facts.channels == 1 and facts.notes == []
    assert facts.grid.spacing_mm == pytest.approx((0.7, 0.7, 1.6))
    assert check_image(path, thorough=False).shape == facts.shape


@pytest.mark.parametrize("scaling", [(NAN, NAN), (NAN, 0), (1, NAN), (INF, 0), (1, -INF), (0, 5)])
def test_a_scaling_that_is_not_defined_is_refused(path, scaling):
    edit(path, SCALING, "<2f", *scaling)
    with pytest.raises(ImageFault, match="values that are not defined.*scl_slope.*set these to 1 and 0"):
        check_image(path, thorough=False)


@pytest.mark.parametrize("scaling", [(1, 0), (0, 0), (2, 1), (-1, 0)])
def test_scalings_that_are_defined_pass(path, scaling):
    check_image(edit(path, SCALING, "<2f", *scaling))


def test_scaled_values_beyond_float32_are_refused(path):
    edit(path, SCALING, "<2f", 1e38, 0)
    assert not np.isfinite(sitk.GetArrayFromImage(sitk.ReadImage(str(path)))).all()
    with pytest.raises(ImageFault, match="beyond float32"):
        check_image(path, thorough=False)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("name", ["image.nii", "image.nii.gz"])
def test_nan_that_simpleitk_reads_as_0_is_seen(tmp_path, dtype, bad, name):
    values = VALUES.astype(dtype)
    values[1, 2, 3] = bad
    path = tmp_path / name
    header = nibabel.Nifti1Header(endianness=">" if dtype == ">f4" else "<")
    header.set_data_dtype(dtype)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([0.7, 0.7, 1.6, 1]), header), path)
    assert np.isfinite(sitk.GetArrayFromImage(sitk.ReadImage(str(path)))).all()
    for check in (check_image, check_label, lambda path: check_image(path, thorough=False)):
        with pytest.raises(ImageFault, match=r"image\.nii(\.gz)? has (1 )?NaN or infinite"):
            check(path)


@pytest.mark.parametrize("kept", [0.99, 0.9, 0.5, 0.1])
@pytest.mark.parametrize("thorough", [True, False])
def test_truncated_files_are_refused(path, kept, thorough):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(ImageFault, match=r"is truncated|cannot be read"):
        check_image(path, thorough=thorough)


@pytest.mark.parametrize(
    ("offset", "form", "values", "message"),
    [
        (DIM, "<8h", (3, 6, 5, 3, 1, 1, 1, 1), "holds more than the 6x5x3 voxels of int16"),
        (DIM, "<8h", (3, 5, 5, 4, 1, 1, 1, 1), "holds more than"),
        (DIM, "<8h", (3, 6, 5, 40, 1, 1, 1, 1), "is truncated"),
        (DIM, "<8h", (3, 30000, 30000, 30000, 1, 1, 1, 1), "is truncated"),
        (DIM, "<8h", (3, 6, -5, 4, 1, 1, 1, 1), "no voxels"),
        (DIM, "<8h", (0, 6, 5, 4, 1, 1, 1, 1), "0 dimensions"),
        (DIM, "<8h", (9, 6, 5, 4, 1, 1, 1, 1), "9 dimensions"),
        (DATATYPE, "<h", (2,), "uint8 with 16 bits"),
        (DATATYPE, "<h", (77,), "datatype 77"),
        (DATATYPE, "<2h", (128, 24), "colours"),
        (DATATYPE, "<2h", (32, 64), "complex"),
        (BITPIX, "<h", (8,), "int16 with 8 bits"),
        (VOX_OFFSET, "<f", (0.0,), "byte 0"),
        (VOX_OFFSET, "<f", (348.0,), "byte 348"),
        (VOX_OFFSET, "<f", (NAN,), "byte nan"),
        (VOX_OFFSET, "<f", (np.inf,), "byte inf"),
        (VOX_OFFSET, "<f", (352.5,), "byte 352.5"),
        (VOX_OFFSET, "<f", (400.0,), "truncated"),
        (VOX_OFFSET, "<f", (600.0 * 2**20,), "beyond 16 MiB"),
        (MAGIC, "<4s", (b"ni1\0",), "header of a pair"),
        (MAGIC, "<4s", (b"\0\0\0\0",), "n\\+1"),
        (0, "<i", (123,), "NIfTI"),
    ],
)
def test_headers_that_contradict_the_file_are_refused(path, offset, form, values, message):
    edit(path, offset, form, *values)
    with pytest.raises(ImageFault, match=message):
        check_image(path)


def test_an_offset_into_an_extension_is_refused(path):
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    extension = b"\1\0\0\0" + (32).to_bytes(4, "little") + b"\6\0\0\0" + b"a comment".ljust(24, b"\0")
    content = content[:348] + extension + content[352:]
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    check_image(edit(path, VOX_OFFSET, "<f", 384))
    with pytest.raises(ImageFault, match="extension of 32 bytes at byte 352, voxels begin at 368"):
        check_image(edit(path, VOX_OFFSET, "<f", 368))


def test_names_that_say_something_else(tmp_path):
    zipped = write_nifti(tmp_path / "image.nii.gz", VALUES)
    plain = write_nifti(tmp_path / "image.nii", VALUES)
    cases = {
        zipped.read_bytes(): ("gzip.nii", r"compressed by gzip: rename it to gzip\.nii\.gz"),
        plain.read_bytes(): ("plain.nii.gz", r"a NIfTI file, not compressed: rename it to plain\.nii"),
        b"\x89PNG\r\n\x1a\n" * 9: ("picture.nii", "a PNG image"),
        b"<!DOCTYPE html>" * 9: ("page.nii.gz", "an HTML page: the download failed"),
        b"version https://git-lfs.github.com/spec/v1": ("pointer.nii.gz", "Git LFS pointer"),
        b"": ("nothing.nii.gz", "is empty"),
        gzip.compress(b""): ("zip_of_nothing.nii.gz", "NIfTI"),
    }
    for content, (name, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageFault, match=message):
            check_image(tmp_path / name)


def test_what_cannot_be_opened_says_why(tmp_path):
    (tmp_path / "folder.nii.gz").mkdir()
    for name, reason in (("folder.nii.gz", "Is a directory"), ("missing.nii", "No such file")):
        with pytest.raises(ImageFault, match=f"{name} cannot be read: {reason}"):
            check_image(tmp_path / name)


@pytest.mark.parametrize("make", ["offset", "behind", "extension", "voxels"])
def test_small_files_that_would_take_much_memory_are_refused_without_it(tmp_path, make):
    """Some hundred kB of deflated zeros each, for up to 2 GiB."""
    plain = write_nifti(tmp_path / "plain.nii", VALUES)
    header = bytearray(plain.read_bytes())
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    if make == "offset":
        header[VOX_OFFSET : VOX_OFFSET + 4] = np.float32(600 << 20).tobytes()
    if make == "extension":
        header[348:360] = b"\1\0\0\0" + (512 << 20).to_bytes(4, "little") + b"\6\0\0\0"
        header[VOX_OFFSET : VOX_OFFSET + 4] = np.float32(8 << 20).tobytes()
    if make == "voxels":
        header[DIM : DIM + 16] = np.array([3, 2000, 2000, 30000, 1, 1, 1, 1], np.int16).tobytes()
    path = tmp_path / "image.nii.gz"
    with path.open("wb") as stream:
        stream.write(packer.compress(bytes(header)))
        for _ in range(192):
            stream.write(packer.compress(bytes(1 << 20)))
        stream.write(packer.flush())
    tracemalloc.start()
    with pytest.raises(ImageFault, match="truncated|holds more than|beyond 16 MiB|extension|too large"):
        check_image(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 << 20


def test_a_volume_that_does_not_fit_into_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("nnunetv2_lightm.images.bounds.free_memory_bytes", lambda: 500)
    with pytest.raises(ImageFault, match=r"too large to read: 6x5x4 voxels of int16 takes .* are free"):
        check_image(write_nifti(tmp_path / "image.nii", VALUES))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.float32, np.float64])
def test_values_of_labels(tmp_path, dtype):
    values = (VALUES % 3).astype(dtype)
    assert check_label(write_nifti(tmp_path / "label.nii.gz", values)).values == (0, 1, 2)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.float32])
def test_a_negative_label_keeps_its_sign(tmp_path, dtype):
    values = (VALUES % 3).astype(dtype) - dtype(1)
    assert check_label(write_nifti(tmp_path / "label.nii.gz", values)).values == (-1, 0, 1)


@pytest.mark.parametrize("bad", ["0.5", "0.9999999", "1.0000001", "1.999"])
def test_fractional_labels_are_refused_with_all_digits(tmp_path, bad):
    values = (VALUES % 3).astype(np.float32)
    values[0, 0, 0] = float(bad)
    with pytest.raises(ImageFault, match=f"not integers, such as {bad}"):
        check_label(write_nifti(tmp_path / "label.nii.gz", values))


def test_a_fraction_that_float32_rounds_away_is_seen(tmp_path):
    values = (VALUES % 3).astype(np.float64)
    values[0, 0, 0] = 0.99999999999
    with pytest.raises(ImageFault, match="0.99999999999"):
        check_label(write_nifti(tmp_path / "label.nii.gz", values))


def test_a_scaled_label_has_the_scaled_values(tmp_path):
    path = write_nifti(tmp_path / "label.nii.gz", VALUES % 3)
    assert check_label(edit(path, SCALING, "<2f", 2, 1)).values == (1, 3, 5)
    with pytest.raises(ImageFault, match="such as 0.5"):
        check_label(edit(path, SCALING, "<2f", 0.5, 0))

"""NIfTI files that SimpleITK reads although they are not whole, or hold NaN."""

from __future__ import annotations

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from lightm_runtime import ImageError
from lightm_runtime.images import read_case
from lightm_runtime.nifti import fault_of

from ..nifti_files import write_nifti

VOXELS = np.random.default_rng(0).normal(0, 200, (20, 19, 18))


@pytest.fixture(params=[(ending, dtype) for ending in (".nii", ".nii.gz") for dtype in ("i2", "u1", "f4", ">f8")])
def file(request, tmp_path):
    ending, dtype = request.param
    path = tmp_path / f"a{ending}"
    nib.save(nib.Nifti1Image(VOXELS.astype(dtype), np.eye(4)), path)
    return path


def test_whole_files_have_no_fault(file, tmp_path):
    assert fault_of(file) is None
    assert read_case([file], ["CT"], "SimpleITKIO").voxels.shape == (1, 18, 19, 20)


def test_other_files_are_named(tmp_path):
    (tmp_path / "a.nii").write_text("no NIfTI at all" * 100)
    assert (
        fault_of(tmp_path / "a.nii")
        == "cannot be read as NIfTI: it is something else, and NIfTI-1 in one file is needed"
    )
    nib.save(nib.Nifti2Image(VOXELS, np.eye(4)), tmp_path / "b.nii")
    assert fault_of(tmp_path / "b.nii") == "cannot be read as NIfTI: it is NIfTI-2, and NIfTI-1 in one file is needed"
    (tmp_path / "c.nii").write_bytes((tmp_path / "b.nii").read_bytes()[:100])
    assert "ends within the header" in fault_of(tmp_path / "c.nii")


def test_what_is_wrong_in_a_header_is_said(file):
    data = file.read_bytes()
    data = bytearray(gzip.decompress(data) if file.suffix == ".gz" else data)
    data[108:112] = bytes(4)
    file.write_bytes(data)
    assert fault_of(file) == "has voxels from byte 0 on by its header (vox_offset), which ends at 348: save it again"
    data[40:42] = bytes(2)
    file.write_bytes(data)
    assert fault_of(file).startswith("has a damaged header: 0 dimensions")


@pytest.mark.parametrize("bits", [0, 1, 8, 16, 24, 32, 64, 128, -32])
@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8"])
def test_bits_that_are_not_those_of_the_type_are_refused(dtype, bits, tmp_path):
    """SimpleITK goes by the type, and fills up what is missing of that."""
    path = tmp_path / "a.nii"
    nib.save(nib.Nifti1Image(VOXELS.astype(dtype), np.eye(4)), path)
    whole = bytearray(path.read_bytes())
    whole[72:74] = struct.pack("<h", bits)
    path.write_bytes(whole[: 352 + VOXELS.size * max(bits, 0) // 8])
    if bits == 8 * np.dtype(dtype).itemsize:
        assert fault_of(path) is None
    else:
        assert f"{bits} bits (datatype, bitpix); needed: {8 * np.dtype(dtype).itemsize} bits" in fault_of(path)
        with pytest.raises(ImageError, match="a.nii: has a damaged header"):
            read_case([path], ["CT"], "SimpleITKIO")


@pytest.mark.parametrize("code", [0, 1, 255, 1536, 2048, -4])
def test_types_that_simpleitk_does_not_read_are_named(code, tmp_path):
    path = tmp_path / "a.nii"
    nib.save(nib.Nifti1Image(VOXELS.astype("i2"), np.eye(4)), path)
    whole = bytearray(path.read_bytes())
    whole[70:72] = struct.pack("<h", code)
    path.write_bytes(whole)
    assert f"voxels of type {code} and 16 bits (datatype, bitpix); needed: a type" in fault_of(path)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
def test_every_type_of_scalars_is_read(dtype, tmp_path):
    values = (np.abs(VOXELS) % 100).astype(dtype)
    nib.save(nib.Nifti1Image(values, np.eye(4), dtype=np.dtype(dtype)), tmp_path / "a.nii")
    assert fault_of(tmp_path / "a.nii") is None
    np.testing.assert_array_equal(
        read_case([tmp_path / "a.nii"], ["CT"], "SimpleITKIO").voxels[0].T, values.astype("f4")
    )


def test_colours_are_whole(tmp_path):
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 255, (4, 5, 6, 3), np.uint8), isVector=True)
    sitk.WriteImage(image, str(tmp_path / "a.nii"))
    assert fault_of(tmp_path / "a.nii") is None
    assert len(read_case([tmp_path / "a.nii"], ["R", "G", "B"], "SimpleITKIO").voxels) == 3


NAN = float("nan")
PLAIN = [(0.0, 0.0), (1.0, 0.0), (NAN, 0.0), (float("inf"), 0.0), (1.0, NAN), (1e-20, 0.0)]
SCALED = [(2.0, 0.0), (0.0, 3.0), (1.0, -0.5), (NAN, 2.0), (0.9999, NAN)]


@pytest.mark.parametrize("scale", [*PLAIN, *SCALED], ids=str)
@pytest.mark.parametrize("colours, shape", [(3, (4, 5, 6)), (4, (4, 5, 6)), (3, (2, 4, 5, 6))])
def test_colours_with_a_scale_are_refused(colours, shape, scale, tmp_path):
    """SimpleITK reads beyond its memory then: other values each time, or some that are not finite."""
    values = np.random.default_rng(0).integers(0, 256, (*shape, colours), np.uint8)
    fields = {"scl_slope": scale[0], "scl_inter": scale[1], "qform_code": 1}
    path = write_nifti(tmp_path / "a.nii", values, {3: 128, 4: 2304}[colours], **fields)
    names = ["channel"] * (colours * (shape[0] if len(shape) == 4 else 1))
    if scale in SCALED:
        with pytest.raises(ImageError, match="a.nii: holds colours with a scale"):
            read_case([path], names, "SimpleITKIO")
    else:
        expected = np.moveaxis(values, -1, -4).reshape(-1, *shape[-3:])
        np.testing.assert_array_equal(read_case([path], names, "SimpleITKIO").voxels, expected)


@pytest.mark.parametrize("intent", [1006, 1007])
@pytest.mark.parametrize("code", [32, 128, 1792, 2304])
def test_vectors_of_several_parts_are_refused(code, intent, tmp_path):
    """SimpleITK would write beyond its memory."""
    parts = {32: 8, 128: 3, 1792: 16, 2304: 4}[code]
    voxels = np.zeros((4, 5, 6, parts), np.uint8)
    path = write_nifti(
        tmp_path / "a.nii", voxels, code, intent_code=intent, bitpix=8 * parts, dim=[3, 6, 5, 4, 1, 1, 1, 1]
    )
    assert f"vectors (intent_code {intent}) of voxels of type {code}" in fault_of(path)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_files_are_refused(file, share):
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ImageError, match=f"{file.name}: is truncated"):
        read_case([file], ["CT"], "SimpleITKIO")


def test_a_whole_stream_of_too_few_voxels_is_refused(file):
    compressed = file.suffix == ".gz"
    data = file.read_bytes()
    data = (gzip.decompress(data) if compressed else data)[:-100]
    file.write_bytes(gzip.compress(data) if compressed else data)
    assert fault_of(file).startswith("is truncated: 100 bytes")


def test_damage_of_a_compressed_stream_is_seen(tmp_path):
    path = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti1Image(VOXELS.astype("i2"), np.eye(4)), path)
    for place in (1000, -1000, -6):
        data = bytearray(path.read_bytes())
        data[place] ^= 0x10
        (tmp_path / "b.nii.gz").write_bytes(data)
        assert "is damaged" in (fault_of(tmp_path / "b.nii.gz") or "") or "truncated" in fault_of(tmp_path / "b.nii.gz")

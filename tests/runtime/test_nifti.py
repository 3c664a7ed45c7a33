"""NIfTI files that SimpleITK reads although they are not whole, or hold NaN."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest
from lightm_runtime import ImageError
from lightm_runtime.images import read_case
from lightm_runtime.nifti import fault_of

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

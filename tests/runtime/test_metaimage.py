"""MetaImage headers at which SimpleITK ends the process, or makes voxels up."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from lightm_runtime import ImageError
from lightm_runtime.formats import is_flat
from lightm_runtime.images import read_case

VOLUME = np.random.default_rng(0).integers(0, 400, (4, 10, 12)).astype(np.int16)


def changed(folder: Path, pattern: str, by: str, *, compressed: bool) -> Path:
    """An image whose header is another in one place."""
    sitk.WriteImage(sitk.GetImageFromArray(VOLUME), str(folder / "whole.mha"), compressed)
    content = (folder / "whole.mha").read_bytes()
    other = re.sub(pattern.encode(), by.encode(), content, count=1)
    assert other != content
    (folder / "a.mha").write_bytes(other)
    return folder / "a.mha"


def refusal(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        read_case([path], ["CT"], "SimpleITKIO")
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("compressed", [False, True])
def test_whole_files_are_read(compressed, tmp_path):
    path = changed(tmp_path, "ElementSpacing = 1", "ElementSpacing = 2", compressed=compressed)
    np.testing.assert_array_equal(read_case([path], ["CT"], "SimpleITKIO").voxels[0], VOLUME)
    assert is_flat(path) is False


@pytest.mark.parametrize("count", ["83", "10", "4", "2", "0", "-1", "3.5", "3\nNDims = 83"])
def test_a_number_of_dimensions_that_is_not_that_of_the_sizes(count, tmp_path):
    """SimpleITK writes past its memory: the process would end, also where only the header is read."""
    path = changed(tmp_path, "NDims = 3", f"NDims = {count}", compressed=False)
    assert is_flat(path) is None
    assert "header" in refusal(path)


def test_more_dimensions_than_simpleitk_has(tmp_path):
    path = changed(tmp_path, "NDims = 3", "NDims = 83", compressed=False)
    content = path.read_bytes()
    for name, number in (("Offset", 83), ("ElementSpacing", 83), ("DimSize", 83), ("TransformMatrix", 83**2)):
        content = re.sub(rf"{name} = .*".encode(), f"{name} = {'1 ' * number}".encode(), content)
    path.write_bytes(content)
    assert is_flat(path) is None
    assert "NDims 83" in refusal(path)


@pytest.mark.parametrize("size", ["missing", "0", "100", "1000000", "-5"])
def test_a_compressed_size_that_is_not_that_of_the_file(size, tmp_path):
    line = "" if size == "missing" else f"CompressedDataSize = {size}\n"
    path = changed(tmp_path, r"CompressedDataSize = \d+\n", line, compressed=True)
    assert f"CompressedDataSize is {size}" in refusal(path)


@pytest.mark.parametrize("true", ["True", "T", "1"])
def test_what_simpleitk_takes_for_compressed_is_checked_as_such(true, tmp_path):
    path = changed(tmp_path, "CompressedData = .*", f"CompressedData =  {true}", compressed=True)
    np.testing.assert_array_equal(read_case([path], ["CT"], "SimpleITKIO").voxels[0], VOLUME)
    content = bytearray(path.read_bytes())
    content[-30] ^= 0x55
    path.write_bytes(content)
    assert "is damaged: its compressed voxels cannot be read" in refusal(path)


def test_a_header_size_in_a_file_that_holds_its_voxels(tmp_path):
    """SimpleITK would read them from five bytes further on."""
    path = changed(tmp_path, "ElementType", "HeaderSize = 5\nElementType", compressed=False)
    assert "HeaderSize 5" in refusal(path)

"""NRRD, MetaImage and GIPL files that are not whole: ITK accepts some of them and fills in what is missing."""

from __future__ import annotations

import re
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_lightm.images.check import check_image, check_label
from nnunetv2_lightm.images.faults import ImageFault
from nnunetv2_lightm.images.itk_bytes import require_whole

VOXELS = np.random.default_rng(0).normal(size=(8, 9, 10)).astype(np.float32)
FORMS = [(".mha", False), (".mha", True), (".nrrd", False), (".nrrd", True), (".gipl", False)]


@pytest.fixture(params=FORMS, ids=lambda form: f"{form[0]}{'-compressed' * form[1]}")
def file(request, tmp_path):
    ending, compressed = request.param
    path = tmp_path / f"image{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS), str(path), compressed)
    return path


def test_what_users_write_into_a_header_is_theirs(tmp_path):
    """NRRD's own fields are `key: value`; `key:=value` are the user's."""
    image = sitk.GetImageFromArray(VOXELS)
    for key in ("type", "encoding", "sizes", "data file", "byte skip"):
        image.SetMetaData(key, "CT")
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    assert b"encoding:=CT" in (tmp_path / "a.nrrd").read_bytes()
    assert check_image(tmp_path / "a.nrrd").shape == VOXELS.shape


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a.mha", "ObjectType = Image\nNDims = 3\nCompressedData = True\nCompressedDataSize = {size}\n"
         "DimSize = 4 4 4\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"),
        ("a.nrrd", "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 4 4 4\nencoding: gzip\n\n"),
    ],
)  # fmt: skip
def test_a_small_file_that_inflates_without_end_takes_no_memory(tmp_path, name, header):
    stream = zlib.compressobj(9)
    zeros = bytes(1 << 20)
    voxels = b"".join(stream.compress(zeros) for _ in range(256)) + stream.flush()
    (tmp_path / name).write_bytes(header.format(size=len(voxels)).encode() + voxels)
    tracemalloc.start()
    try:
        with pytest.raises(ImageFault, match="holds more than the 64 bytes"):
            check_image(tmp_path / name)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def damaged(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_whole_files_are_taken(file):
    facts = check_image(file)
    assert (facts.shape, facts.channels) == (VOXELS.shape, 1)


@pytest.mark.parametrize("missing", [1, 3, 1000, 2750, 2900])
def test_truncated_files_are_refused(file, missing):
    with pytest.raises(ImageFault, match="is truncated"):
        check_image(damaged(file, file.read_bytes()[:-missing]))


@pytest.mark.parametrize("more", [b"\0", b"x" * 1000])
def test_longer_files_are_refused(file, more):
    with pytest.raises(ImageFault, match="holds more than"):
        check_image(damaged(file, file.read_bytes() + more))


@pytest.mark.parametrize("size", [None, "0", "300", "99999", "x", "-1"])
def test_metaimages_of_which_itk_would_inflate_a_part_are_refused(tmp_path, size):
    """Without an error, ITK makes up 10 to 100 % of the voxels."""
    path = tmp_path / "image.mha"
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS), str(path), True)
    data = re.sub(
        rb"CompressedDataSize = \d+\n",
        b"" if size is None else f"CompressedDataSize = {size}\n".encode(),
        path.read_bytes(),
    )
    with pytest.raises(ImageFault, match="CompressedDataSize|is truncated|holds more than"):
        check_image(damaged(path, data))


@pytest.mark.parametrize("dimensions", ["83", "4", "2", "-3", "x"])
def test_metaimages_of_another_dimension_are_refused_before_itk_crashes(tmp_path, dimensions):
    path = tmp_path / "image.mha"
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS), str(path))
    with pytest.raises(ImageFault, match=f"damaged header: NDims {dimensions}"):
        check_image(damaged(path, path.read_bytes().replace(b"NDims = 3", f"NDims = {dimensions}".encode())))


def test_a_metaimage_that_says_a_thing_twice_is_refused(tmp_path):
    """ITK may take the other one."""
    path = tmp_path / "image.mha"
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS), str(path))
    with pytest.raises(ImageFault, match="damaged header: NDims twice"):
        check_image(damaged(path, path.read_bytes().replace(b"NDims = 3", b"NDims = 83\nNDims = 3")))


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
@pytest.mark.parametrize("place", [-4, -100, -1500])
def test_damage_of_a_compressed_stream_is_seen(tmp_path, ending, place):
    path = tmp_path / f"image{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS), str(path), True)
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    with pytest.raises(ImageFault, match="is damaged|is truncated|holds more than"):
        check_image(damaged(path, bytes(data)))


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
)
def test_every_type_of_voxel(tmp_path, dtype, ending, compressed):
    for voxels in (np.ones((3, 4, 5), dtype), np.ones((3, 4, 5, 2), dtype)):
        path = tmp_path / f"image{ending}"
        sitk.WriteImage(sitk.GetImageFromArray(voxels, isVector=voxels.ndim == 4), str(path), compressed)
        require_whole(path)
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((3, 4, 5), dtype)), str(path), compressed)
    assert check_label(path).values == (1,)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "float64"])
def test_every_type_of_voxel_in_gipl(tmp_path, dtype):
    path = tmp_path / "image.gipl"
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((3, 4, 5), dtype)), str(path))
    assert check_label(path).values == (1,)


META = "ObjectType = Image\nNDims = 3\nBinaryData = True\nDimSize = {}\nElementType = {}\nElementDataFile = {}\n"
NRRD = "NRRD0004\ntype: {}\ndimension: 3\nsizes: {}\nencoding: {}\n{}\n"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.mha", META.format("30000 30000 3000", "MET_SHORT", "LOCAL"), "cannot hold"),
        ("a.mha", META.format("3 4 5", "MET_SHORT", "/etc/passwd"), "in another file"),
        ("a.mha", META.format("3 4 inf", "MET_SHORT", "LOCAL"), "sizes '3 4 inf'"),
        ("a.mha", META.format("3 4 5", "MET_NONE", "LOCAL"), "ElementType MET_NONE"),
        ("a.mha", "ObjectType = Image\n", "truncated within its header"),
        ("a.mha", "", "truncated within its header"),
        ("a.nrrd", NRRD.format("short", "30000 30000 3000", "raw", ""), "cannot hold"),
        ("a.nrrd", NRRD.format("short", "30000 30000 3000", "gzip", ""), "cannot hold"),
        ("a.nrrd", NRRD.format("short", "3 4 5", "raw", "data file: /etc/passwd\n"), "in another file"),
        ("a.nrrd", NRRD.format("block", "3 4 5", "raw", ""), "type block"),
        ("a.nrrd", NRRD.format("short", "3 4 5", "bzip2", ""), "bzip2, not raw or gzip: save it"),
        ("a.nrrd", "PK\x03\x04\n", "no NRRD header"),
        ("a.gipl", "x" * 100, "truncated within its header"),
        ("a.gipl", "x" * 300, "damaged header"),
    ],
)
def test_headers_that_are_none(tmp_path, name, text, words):
    with pytest.raises(ImageFault, match=words):
        check_image(damaged(tmp_path / name, text.encode()))

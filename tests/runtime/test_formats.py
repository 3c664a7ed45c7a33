"""Image files of other formats than NIfTI: whole, with the values that nnU-Net's reader gives, or refused."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
import zlib

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from lightm_runtime import ImageError
from lightm_runtime.formats import CHECKED, READ, is_flat
from lightm_runtime.images import read_case
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from PIL import Image

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (20, 33), dtype=np.uint8)
COLOURS = RNG.integers(0, 256, (20, 33, 3), dtype=np.uint8)
OPACITY = np.dstack([COLOURS, GREY])
VOLUME = RNG.integers(0, 4000, (9, 12, 14)).astype(np.int16)


def png(bits: int, kind: int, transparent: bytes | None = None, palette: bytes | None = None) -> bytes:
    """Drawn values of a bit depth and colour type that Pillow does not write."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    rows = RNG.integers(0, 256, (20, (33 * samples * bits + 7) // 8), dtype=np.uint8)
    pixels = b"".join(b"\0" + row.tobytes() for row in rows)
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", 33, 20, bits, kind, 0, 0, 0)),
        (b"PLTE", palette),
        (b"tRNS", transparent),
    ]
    parts += [(b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
        if data is not None
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def palette_of(bits: int) -> bytes:
    return RNG.integers(0, 256, 3 << bits, dtype=np.uint8).tobytes()


PNGS = {
    **{f"{bits} bits": (bits, 0) for bits in (1, 2, 4, 8, 16)},
    **{f"{bits} bits, one transparent": (bits, 0, b"\0\1") for bits in (1, 2, 4, 8, 16)},
    **{f"palette of {bits} bits": (bits, 3, None, palette_of(bits)) for bits in (1, 2, 4, 8)},
    **{f"palette of {bits} bits, transparent": (bits, 3, b"\0\1", palette_of(bits)) for bits in (1, 8)},
    **{f"colours of {bits} bits": (bits, 2) for bits in (8, 16)},
    **{f"colours of {bits} bits, one transparent": (bits, 2, b"\0\1\0\2\0\3") for bits in (8, 16)},
    **{f"colours and opacity of {bits} bits": (bits, 6) for bits in (8, 16)},
}
BMPS = {
    "grey": Image.fromarray(GREY),
    "black and white": Image.fromarray(GREY > 127),
    "colours": Image.fromarray(COLOURS),
    "palette": Image.fromarray(COLOURS).convert("P", palette=Image.Palette.ADAPTIVE),
    "few colours": Image.fromarray(COLOURS).convert("P", palette=Image.Palette.ADAPTIVE, colors=7),
    "32 bits": Image.fromarray(OPACITY),
}
COLOUR_MAP = RNG.integers(0, 65535, (3, 256), dtype=np.uint16)
SEPARATE = {"photometric": "rgb", "planarconfig": "separate"}
TIFFS = {
    "grey": (GREY, {}),
    "white is zero": (GREY, {"photometric": "miniswhite"}),
    "white is zero, in tiles": (GREY, {"photometric": "miniswhite", "tile": (16, 16)}),
    "in tiles": (GREY, {"tile": (16, 16)}),
    "compressed": (GREY, {"compression": "zlib", "predictor": True}),
    "LZW": (GREY, {"compression": "lzw"}),
    "palette": (GREY, {"photometric": "palette", "colormap": COLOUR_MAP}),
    "palette, from the big end": (GREY, {"photometric": "palette", "colormap": COLOUR_MAP, "byteorder": ">"}),
    "1 bit": (GREY > 127, {}),
    "1 bit, white is zero": (GREY > 127, {"photometric": "miniswhite"}),
    "16 bits": (GREY.astype(np.uint16) * 200, {}),
    "signed": (GREY.astype(np.int16) - 100, {}),
    "32 bits": (GREY.astype(np.uint32) * 2000, {"bigtiff": True}),
    "float": (GREY.astype(np.float32) / 3, {}),
    "colours": (COLOURS, {"photometric": "rgb"}),
    "colours in tiles": (COLOURS, {"photometric": "rgb", "tile": (16, 16)}),
    "colours apart": (np.moveaxis(COLOURS, -1, 0), SEPARATE),
    "colours of 16 bits": (COLOURS.astype(np.uint16) * 200, {"photometric": "rgb"}),
    "colours and opacity": (OPACITY, {"photometric": "rgb"}),
    "float16": (GREY.astype(np.float16), {}),
    "float64": (GREY.astype(np.float64) / 3, {}),
    "16 bits in tiles, from the big end": (GREY.astype(np.uint16) * 200, {"tile": (16, 16), "byteorder": ">"}),
    "to be shown upside down": (GREY, {"extratags": [(274, "H", 1, 4, True)]}),
}


def assert_as_nnunet(path) -> None:
    """The values of skimage.io.imread, as nnU-Net calls it."""
    expected, _ = NaturalImage2DIO().read_images([str(path)])
    case = read_case([path], ["x"] * len(expected), "NaturalImage2DIO")
    np.testing.assert_array_equal(case.voxels, expected)
    assert is_flat(path)


@pytest.mark.parametrize("name", PNGS)
def test_png_has_nnunets_values(name, tmp_path):
    (tmp_path / "a.png").write_bytes(png(*PNGS[name]))
    assert_as_nnunet(tmp_path / "a.png")


@pytest.mark.parametrize("name", BMPS)
def test_bmp_has_nnunets_values(name, tmp_path):
    BMPS[name].save(tmp_path / "a.bmp")
    assert_as_nnunet(tmp_path / "a.bmp")


@pytest.mark.parametrize("name", TIFFS)
def test_tiff_has_nnunets_values(name, tmp_path):
    values, options = TIFFS[name]
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    assert_as_nnunet(tmp_path / "a.tif")


def test_pages_of_two_images_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(GREY)
        file.write(GREY[:10, :10])
    with pytest.raises(ImageError, match="pages of different sizes"):
        read_case([tmp_path / "a.tif"], ["x"], "NaturalImage2DIO")


def test_png_that_nnunet_does_not_read_is_refused(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(8, 4))
    with pytest.raises(ImageError, match="without transparency"):
        read_case([path], ["x"], "NaturalImage2DIO")
    frames = [Image.fromarray(GREY), Image.fromarray(GREY[::-1])]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="animation"):
        read_case([path], ["x"], "NaturalImage2DIO")


VOLUMES = (".nii", ".nii.gz", ".nrrd", ".mha", ".gipl", ".gipl.gz", ".tif")


def write(path, compressed: bool) -> np.ndarray:
    """An image of that format. Returns its values."""
    values = VOLUME if path.name.endswith(VOLUMES) else GREY
    sitk.WriteImage(
        sitk.GetImageFromArray(values.astype(np.uint16) if path.suffix == ".tif" else values), str(path), compressed
    )
    return values


def read(path) -> np.ndarray:
    return read_case([path], ["x"], "SimpleITKIO").voxels[0]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("ending", READ)
def test_truncated_files_are_refused(ending, compressed, tmp_path):
    whole, cut = tmp_path / f"whole{ending}", tmp_path / f"cut{ending}"
    expected = write(whole, compressed)
    if ending not in (".jpg", ".jpeg"):
        np.testing.assert_array_equal(read(whole).reshape(expected.shape), expected)
    content = whole.read_bytes()
    for share in np.linspace(0, 1, 40, endpoint=False):
        cut.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ImageError, match=f"cut{ending}: "):
            read(cut)


@pytest.mark.parametrize("ending", [".nii.gz", ".gipl.gz", ".mha", ".nrrd", ".png"])
def test_damage_of_compressed_voxels_is_seen(ending, tmp_path):
    """By the checksum, or it changes nothing."""
    whole, damaged = tmp_path / f"whole{ending}", tmp_path / f"damaged{ending}"
    expected = write(whole, True)
    content = whole.read_bytes()
    begin = (
        content.rfind(b"LOCAL\n") + 6 if ending == ".mha" else content.find(b"\n\n") + 2 if ending == ".nrrd" else 10
    )
    for place in np.linspace(begin, len(content) - 1, 50).astype(int):
        damaged.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        try:
            found = read(damaged)
        except ImageError:
            continue
        np.testing.assert_array_equal(found.reshape(expected.shape), expected)


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a.mha", "ObjectType = Image\nNDims = 3\nBinaryData = True\nCompressedData = True\nCompressedDataSize = {}\n"
         "DimSize = 4 4 4\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"),
        ("a.nrrd", "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 4 4 4\nencoding: gzip\n\n"),
    ],
)  # fmt: skip
def test_a_small_file_that_inflates_without_end_is_checked_without_the_memory(name, header, tmp_path):
    stream = zlib.compressobj(9)
    zeros = bytes(1 << 20)
    voxels = b"".join(stream.compress(zeros) for _ in range(128)) + stream.flush()
    (tmp_path / name).write_bytes(header.format(len(voxels)).encode() + voxels)
    tracemalloc.start()
    try:
        assert CHECKED[f".{name.rpartition('.')[2]}"][1](tmp_path / name) is None
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_what_users_write_into_an_nrrd_header_is_theirs(tmp_path):
    image = sitk.GetImageFromArray(VOLUME)
    image.SetMetaData("data file", "CT")
    image.SetMetaData("encoding", "gzip")
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    assert b"data file:=CT" in (tmp_path / "a.nrrd").read_bytes()
    assert CHECKED[".nrrd"][1](tmp_path / "a.nrrd") is None


@pytest.mark.parametrize("missing", [1, 3])
def test_a_tiff_of_fewer_pages_is_truncated(missing, tmp_path):
    """Pages behind one another, as microscopes write them: SimpleITK reads those that are there."""
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for plane in VOLUME:
            file.write(plane, contiguous=False, metadata=None)
    content = (tmp_path / "a.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        ends = file.pages[-missing].offset
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), VOLUME)
    (tmp_path / "b.tif").write_bytes(content[:ends])
    with pytest.raises(ImageError, match="b.tif: is truncated"):
        read(tmp_path / "b.tif")


@pytest.mark.parametrize(
    "shape, options",
    [
        ((9, 2, 12, 14), {"imagej": True, "metadata": {"axes": "ZCYX"}}),
        ((3, 9, 12, 14), {"imagej": True, "metadata": {"axes": "TZYX"}}),
        ((2, 9, 12, 14), {}),
    ],
    ids=["channels of ImageJ", "times of ImageJ", "two axes"],
)
def test_a_stack_of_two_axes_is_refused(shape, options, tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RNG.integers(0, 200, shape).astype(np.uint16), photometric="minisblack", **options)
    with pytest.raises(ImageError, match=r"a.tif: is a stack of .* save each"):
        read(path)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"imagej": True},
        {"metadata": None},
        {"bigtiff": True, "byteorder": ">"},
        {"truncate": True},
        {"imagej": True, "truncate": True},
    ],
    ids=["pages", "ImageJ", "bare pages", "from the big end", "one page", "one page of ImageJ"],
)
def test_tiff_volumes_are_read_whole(options, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", VOLUME.astype(np.uint16), photometric="minisblack", **options)
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), VOLUME)


def test_pairs_and_formats_without_a_check_are_refused(tmp_path):
    nib.save(nib.Nifti1Pair(VOLUME, np.eye(4)), tmp_path / "pair.img")
    for name in ("m.mhd", "n.nhdr", "v.vtk"):
        write(tmp_path / name, False)
    for name in ("pair.img", "pair.hdr", "m.mhd", "n.nhdr"):
        with pytest.raises(ImageError, match=f"{name}: has a header and voxels in two files.*save it as NIfTI"):
            read(tmp_path / name)
    with pytest.raises(ImageError, match=r"v.vtk: .*save it as NIfTI in one file \(.nii.gz\)"):
        read(tmp_path / "v.vtk")
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ImageError, match=r"notes.txt: is of no format that is read: .*\.nii\.gz"):
        read(tmp_path / "notes.txt")


def test_voxels_in_another_file_are_refused(tmp_path):
    write(tmp_path / "a.mhd", False)
    (tmp_path / "a.mhd").rename(tmp_path / "a.mha")
    write(tmp_path / "b.nhdr", False)
    (tmp_path / "b.nhdr").rename(tmp_path / "b.nrrd")
    for name in ("a.mha", "b.nrrd"):
        with pytest.raises(ImageError, match=f"{name}: has its voxels in another file"):
            read(tmp_path / name)


@pytest.mark.parametrize("name", ["slice.dcm", "slice.DCM", "slice"])
def test_dicom_is_refused_by_its_name_and_its_bytes(name, tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(GREY), str(tmp_path / "a.dcm"))
    (tmp_path / "a.dcm").rename(tmp_path / name)
    with pytest.raises(ImageError, match=f"{name}: is DICOM.*dcm2niix"):
        read(tmp_path / name)


def test_a_file_is_read_as_what_its_name_says(tmp_path):
    """Else a format would be read without its check."""
    write(tmp_path / "a.jpg", False)
    (tmp_path / "a.jpg").rename(tmp_path / "a.png")
    with pytest.raises(ImageError, match="a.png: cannot be read as PNG"):
        read(tmp_path / "a.png")
    write(tmp_path / "b.gipl", False)
    for ending in (".nrrd", ".mha", ".nii", ".bmp", ".tif", ".jpg"):
        (tmp_path / f"b{ending}").write_bytes((tmp_path / "b.gipl").read_bytes())
        with pytest.raises(ImageError, match=f"b{ending}: "):
            read(tmp_path / f"b{ending}")
    (tmp_path / "c.gipl.gz").write_bytes(gzip.compress((tmp_path / "b.gipl").read_bytes()))
    np.testing.assert_array_equal(read(tmp_path / "c.gipl.gz"), VOLUME)

"""TIFF and BMP: only whole files are accepted, even if the reader returns what it could read."""

from __future__ import annotations

import struct
from contextlib import suppress

import numpy as np
import pytest
import tifffile
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO
from PIL import Image

from nnunetv2_lightm.images.cases import check_cases
from nnunetv2_lightm.images.check import check_image, check_label
from nnunetv2_lightm.images.faults import ImageFault

RANDOM = np.random.default_rng(0)
VOLUME = RANDOM.normal(size=(6, 40, 50)).astype(np.float32)
PIXELS = RANDOM.integers(0, 255, (40, 50)).astype(np.uint8)
COMPRESSION = pytest.mark.parametrize("compression", [None, "zlib", "lzw"])


def write_tiff(path, values=VOLUME, **options):
    tifffile.imwrite(path, values, rowsperstrip=8, **options)
    return path


@COMPRESSION
def test_whole_tiff_files_are_taken(tmp_path, compression):
    facts = check_image(write_tiff(tmp_path / "a.tif", compression=compression))
    assert (facts.shape, facts.channels) == ((6, 40, 50), 1)
    rgb = write_tiff(tmp_path / "b.tif", np.stack([PIXELS] * 3, -1), photometric="rgb", compression=compression)
    assert (check_image(rgb).shape, check_image(rgb).channels) == ((40, 50), 3)
    assert check_label(write_tiff(tmp_path / "c.tif", PIXELS // 128)).values == (0, 1)
    with pytest.raises(ImageFault, match="3 channels"):
        check_label(rgb)
    planes = np.stack([PIXELS] * 3)
    planar = write_tiff(tmp_path / "d.tif", planes, photometric="rgb", planarconfig="separate", compression=compression)
    assert (check_image(planar).shape, check_image(planar).channels) == ((40, 50), 3)


@pytest.mark.parametrize("shape", [(3, 40, 50), (12, 40, 4), (40, 50, 3), (5, 40, 50)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_has_the_channels_that_nnunet_reads(tmp_path, shape, dtype):
    """A .tiff is a volume, also where tifffile calls it RGB, as labels of three planes that nnU-Net writes itself."""
    values = RANDOM.integers(0, 2, shape).astype(dtype)
    Tiff3DIO().write_seg(values, str(tmp_path / "a.tiff"), {"spacing": (1, 1, 1)})
    assert Tiff3DIO().read_seg(str(tmp_path / "a.tiff"))[0].shape == (1, *shape)
    for check in (check_image, check_label):
        assert (check(tmp_path / "a.tiff").shape, check(tmp_path / "a.tiff").channels) == (shape, 1)

    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
    facts = check_image(tmp_path / "a.tif")
    if {3, 4} & {shape[0], shape[2]}:
        channels, _, *read = NaturalImage2DIO().read_images([str(tmp_path / "a.tif")])[0].shape
        assert (facts.channels, facts.shape) == (channels, tuple(read))
    else:
        assert (facts.channels, facts.shape) == (1, shape)
    one = check_image(tmp_path / "a.tif", is_one_channel=True)
    assert one.channels == (shape[2] if shape[2] in (3, 4) else 1)


def test_only_the_damaged_one_of_many_tiff_files_is_refused(tmp_path):
    """They are read at the same time, and tifffile has one log for all."""
    files = [write_tiff(tmp_path / f"{name}_0000.tif", compression="zlib") for name in "abcdefgh"]
    files[3].write_bytes(files[3].read_bytes()[:-2000])
    for _ in range(5):
        checked = check_cases({file.stem[0]: [file] for file in files}, {"0": "stain"}, ".tif")
        assert len(checked.faults) == 1 and "d_0000.tif" in checked.faults[0], checked.faults
        assert set(checked.facts) == set("abcefgh")


def test_damage_to_any_byte_of_a_tiff_header_names_the_file(tmp_path):
    path = write_tiff(tmp_path / "a.tif", VOLUME[:2, :8, :9], compression="zlib")
    data = bytearray(path.read_bytes())
    begin = len(data) - 600  # tifffile writes its tables around the voxels
    for place in [*range(300), *range(begin, len(data))]:
        for bit in (0, 5, 7):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
            with suppress(ImageFault):
                check_image(path)


def test_a_tiff_header_that_asks_for_millions_of_steps_is_refused_before_a_pixel_is_read(tmp_path, monkeypatch):
    """They would take 12 s and 1.6 GB."""
    path = write_tiff(tmp_path / "a.tif", PIXELS, compression="zlib")
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags["ImageLength"].overwrite(8388628)
    monkeypatch.delattr(tifffile.TiffPageSeries, "asarray")
    with pytest.raises(ImageFault, match="a.tif is damaged or truncated: .*StripByteCounts"):
        check_image(path)


@COMPRESSION
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_tiff_files_are_refused(tmp_path, compression, share):
    """tifffile reads the first page of some of these, and logs that there should be more."""
    path = write_tiff(tmp_path / "a.tif", compression=compression)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ImageFault, match="a.tif (cannot be read as TIFF|is damaged or truncated)"):
        check_image(path)


@pytest.mark.parametrize(
    ("values", "words"), [(np.nan, "1 NaN or infinite"), (np.inf, "1 NaN or infinite"), (0.9999999, "0.9999999")]
)
def test_values_of_tiff_files(tmp_path, values, words):
    volume = np.ones((6, 40, 50), np.float64)
    volume[1, 2, 3] = values
    with pytest.raises(ImageFault, match=words):
        check_label(write_tiff(tmp_path / "a.tif", volume))


def test_a_file_of_two_images_is_noted(tmp_path):
    """Such as a thumbnail."""
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(PIXELS)
        file.write(PIXELS[:20])
    facts = check_image(tmp_path / "a.tif")
    assert facts.shape == NaturalImage2DIO().read_images([str(tmp_path / "a.tif")])[0].shape[2:] == (40, 50)
    assert "holds 2 images" in facts.notes[0]


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("RGB", 3), ("P", 1)])
def test_bmp_files(tmp_path, mode, channels):
    path = tmp_path / "a.bmp"
    Image.fromarray(PIXELS).convert(mode).save(path)
    assert (check_image(path).shape, check_image(path).channels) == ((40, 50), channels)
    data = path.read_bytes()
    for length in (10, 100, len(data) - 60):
        path.write_bytes(data[:length])
        with pytest.raises(ImageFault, match="a.bmp (cannot be read as BMP|is truncated)"):
            check_image(path)


def test_bmp_files_of_runs_are_taken(tmp_path):
    """One run of 255 equal pixels takes two bytes: the file is smaller than its pixels."""
    width = height = 1020
    pixels = (bytes([255, 7]) * (width // 255) + b"\0\0") * height + b"\0\1"
    palette = b"".join(bytes([i, i, i, 0]) for i in range(256))
    size = 54 + len(palette) + len(pixels)
    header = struct.pack(
        "<2sIHHIIiiHHIIiiII", b"BM", size, 0, 0, 1078, 40, width, height, 1, 8, 1, len(pixels), 0, 0, 256, 0
    )
    (tmp_path / "a.bmp").write_bytes(header + palette + pixels)
    assert np.unique(NaturalImage2DIO().read_images([str(tmp_path / "a.bmp")])[0]) == [7]
    assert check_image(tmp_path / "a.bmp").shape == (height, width)


def test_other_formats_by_these_names(tmp_path):
    for name in ("a.bmp", "a.tif"):
        Image.fromarray(PIXELS).save(tmp_path / name, format="PNG")
        with pytest.raises(ImageFault, match="cannot be read as"):
            check_image(tmp_path / name)
    assert check_label(write_tiff(tmp_path / "a.tif", np.zeros((4, 5), np.uint8))).values == (0,)

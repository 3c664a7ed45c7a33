"""PNG files of every kind."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from skimage import io

from nnunetv2_lightm.dataset_conversion._errors import CaseRefused
from nnunetv2_lightm.dataset_conversion._png import read_gray_png, read_mask_png, write_gray_png

GRAY, RGB, PALETTE, GRAY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
VALUES = np.random.default_rng(0).integers(0, 256, (6, 9), np.uint8)
VALUES_16 = np.random.default_rng(0).integers(0, 65536, (6, 9), np.uint16)


def encode(samples: np.ndarray, colour_type: int, palette: bytes | None = None) -> bytes:
    """A PNG of 8 or 16 bits, built from the format's specification: Pillow cannot write all kinds."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(samples.dtype.newbyteorder(">")).tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, samples.dtype.itemsize * 8, colour_type, 0, 0, 0)
    plte = chunk(b"PLTE", palette) if palette else b""
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + plte + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def channels(*planes: np.ndarray) -> np.ndarray:
    return np.stack(planes, axis=-1)


@pytest.fixture
def read(tmp_path):
    def read(content: bytes, reader=read_gray_png):
        file = tmp_path / "image.png"
        file.write_bytes(content)
        return reader(file)

    return read


OPAQUE, OPAQUE_16 = np.full_like(VALUES, 255), np.full_like(VALUES_16, 65535)


@pytest.mark.parametrize(
    ("samples", "colour_type", "expected"),
    [
        (VALUES, GRAY, VALUES),
        (VALUES_16, GRAY, VALUES_16),
        (channels(VALUES, OPAQUE), GRAY_ALPHA, VALUES),
        (channels(VALUES, VALUES, VALUES), RGB, VALUES),
        (channels(VALUES_16, VALUES_16, VALUES_16), RGB, VALUES_16),
        (channels(VALUES, VALUES, VALUES, OPAQUE), RGB_ALPHA, VALUES),
        (channels(VALUES_16, VALUES_16, VALUES_16, OPAQUE_16), RGB_ALPHA, VALUES_16),
    ],
    ids=["L", "L16", "LA", "RGB", "RGB16", "RGBA", "RGBA16"],
)
def test_gray_in_any_guise_keeps_its_values(read, samples, colour_type, expected):
    gray = read(encode(samples, colour_type))
    assert gray.pixels.dtype == expected.dtype
    assert np.array_equal(gray.pixels, expected)
    assert gray.is_plain == (colour_type == GRAY)
    assert gray.repairs == gray.notes == []


def test_a_palette_is_looked_up(read):
    palette = bytes(np.repeat(np.arange(255, -1, -1, dtype=np.uint8), 3))
    gray = read(encode(VALUES, PALETTE, palette))
    assert np.array_equal(gray.pixels, 255 - VALUES)
    assert not gray.is_plain


def test_a_palette_that_is_missing_is_refused(read):
    with pytest.raises(CaseRefused, match="no palette"):
        read(encode(VALUES, PALETTE))


@pytest.mark.parametrize("kind", [PALETTE, 1, 5, 7])
def test_colour_types_that_png_does_not_have_are_refused(read, kind):
    with pytest.raises(CaseRefused, match="damaged header"):
        read(encode(VALUES_16, kind))


def test_gray_with_alpha_of_16_bits_says_what_it_loses(read):
    gray = read(encode(channels(VALUES_16, OPAQUE_16), GRAY_ALPHA))
    assert np.array_equal(gray.pixels, VALUES_16 >> 8)
    assert "8 bits" in gray.repairs[0]


def test_bilevel_becomes_0_and_255(tmp_path):
    file = tmp_path / "mask.png"
    Image.fromarray(VALUES > 127).save(file)
    assert Image.open(file).mode == "1"
    assert np.array_equal(read_gray_png(file).pixels, np.where(VALUES > 127, 255, 0))
    assert np.array_equal(read_mask_png(file).pixels, VALUES > 127)


def test_colour_is_reported_and_becomes_luminance(read):
    gray = read(encode(channels(OPAQUE, 0 * VALUES, 0 * VALUES), RGB))
    assert np.all(gray.pixels == 76)
    assert gray.is_coloured
    assert "coloured (channels differ by up to 255 of 255)" in gray.repairs[0]


def test_channels_that_differ_by_rounding_are_gray(read):
    values = np.minimum(VALUES, 250)
    gray = read(encode(channels(values, values + 2, values), RGB))
    assert np.abs(gray.pixels.astype(int) - values).max() <= 2
    assert not gray.is_coloured
    assert gray.repairs == []


def test_transparency_is_noted(read):
    gray = read(encode(channels(VALUES, VALUES), GRAY_ALPHA))
    assert np.array_equal(gray.pixels, VALUES)
    assert gray.notes == ["image.png: transparency ignored"]


@pytest.mark.parametrize("kept", [0, 10, 30, 60])
@pytest.mark.parametrize("samples", [VALUES, channels(VALUES_16, VALUES_16, VALUES_16)], ids=["L", "RGB16"])
def test_truncated_files_are_refused(read, samples, kept):
    content = encode(samples, GRAY if samples.ndim == 2 else RGB)
    with pytest.raises(CaseRefused, match=r"image\.png (is empty|cannot be read)"):
        read(content[:kept])


def test_corrupt_files_are_refused(read):
    content = bytearray(encode(VALUES, GRAY))
    content[60] ^= 0xFF
    with pytest.raises(CaseRefused, match="cannot be read"):
        read(bytes(content))


def test_other_formats_are_refused(tmp_path):
    file = tmp_path / "image.png"
    Image.fromarray(VALUES).save(file, format="JPEG")
    with pytest.raises(CaseRefused, match="cannot be read as PNG"):
        read_gray_png(file)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 255], [0, 1]), ([0, 1], [0, 1]), ([0, 0], [0, 0]), ([1, 1], [1, 1]), ([128, 255], [1, 1])],
)
def test_two_levels_make_a_mask(read, values, expected):
    mask = read(encode(np.array([values], np.uint8), GRAY), read_mask_png)
    assert mask.pixels.tolist() == [expected]
    assert mask.pixels.dtype == np.uint8
    assert mask.repairs == []


def test_interpolated_masks_are_thresholded_at_half(read):
    mask = read(encode(np.array([[0, 60, 127, 128, 200, 255]], np.uint8), GRAY), read_mask_png)
    assert mask.pixels.tolist() == [[0, 0, 0, 1, 1, 1]]
    assert mask.repairs == ["image.png: 6 gray levels thresholded at 128"]


def test_half_is_half_of_the_own_dtype(read):
    mask = read(encode(np.array([[0, 32767, 32768, 65535]], np.uint16), GRAY), read_mask_png)
    assert mask.pixels.tolist() == [[0, 0, 1, 1]]


def test_a_mask_that_would_become_empty_is_refused(read):
    with pytest.raises(CaseRefused, match=r"values up to 2, .* half of the range \(128\)"):
        read(encode(np.array([[0, 1, 2]], np.uint8), GRAY), read_mask_png)


def test_a_coloured_mask_is_refused(read):
    with pytest.raises(CaseRefused, match="coloured"):
        read(encode(channels(OPAQUE, 0 * VALUES, 0 * VALUES), RGB), read_mask_png)


@pytest.mark.parametrize("values", [VALUES, VALUES_16])
def test_what_is_written_is_read_as_nnunet_does(tmp_path, values):
    write_gray_png(values, tmp_path / "image.png")
    read = io.imread(tmp_path / "image.png")
    assert read.dtype == values.dtype
    assert np.array_equal(read, values)

"""X-rays and masks that ask viewers to rotate them, and masks whose shape is not in their gray."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps
from skimage import io

from nnunetv2_lightm.dataset_conversion import Dataset802_MontgomeryShenzhen
from nnunetv2_lightm.dataset_conversion._errors import CaseRefused
from nnunetv2_lightm.dataset_conversion._png import read_gray_png, read_mask_png

from ..pictures import RGB, chunk

WIDE, SQUARE = (12, 20), (16, 16)


def save(path, pixels: np.ndarray, orientation: int = 1) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, exif=exif if orientation != 1 else None)


def pixels_and_mask(shape):
    rng = np.random.default_rng(0)
    mask = np.zeros(shape, np.uint8)
    mask[2:9, 1:6] = 255
    return rng.integers(0, 256, shape, np.uint8), mask


def convert(source) -> int:
    return Dataset802_MontgomeryShenzhen.main([str(source), "--split", "none", "--workers", "1"])


def entry(folders) -> dict:
    report = json.loads((folders.raw / "Dataset802_MontgomeryShenzhen/conversion_report.json").read_text())
    return next(case for case in report["cases"] if case["case"] == "MCUCXR_0001_0")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("shape", [WIDE, SQUARE])
def test_an_image_is_turned_as_pillow_does(tmp_path, orientation, shape):
    pixels, _ = pixels_and_mask(shape)
    save(tmp_path / "x.png", pixels, orientation)
    gray = read_gray_png(tmp_path / "x.png")
    assert np.array_equal(gray.pixels, ImageOps.exif_transpose(Image.open(tmp_path / "x.png")))
    assert gray.is_plain == (orientation == 1) == (gray.repairs == [])


@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
@pytest.mark.parametrize("shape", [WIDE, SQUARE])
def test_image_and_mask_that_ask_alike_are_turned_alike(tmp_path, folders, xrays, orientation, shape):
    xrays.add_kaggle(2)
    pixels, mask = pixels_and_mask(shape)
    save(xrays.folder / "CXR_png/MCUCXR_0001_0.png", pixels, orientation)
    save(xrays.folder / "masks/MCUCXR_0001_0.png", mask, orientation)
    assert convert(xrays.folder) == 0
    raw = folders.raw / "Dataset802_MontgomeryShenzhen"
    for folder, name, stored in (("imagesTr", "_0000", pixels), ("labelsTr", "", mask // 255)):
        expected = io.imread(raw / folder / f"MCUCXR_0001_0{name}.png")
        save(tmp_path / "x.png", stored, orientation)
        assert np.array_equal(expected, ImageOps.exif_transpose(Image.open(tmp_path / "x.png")))
    assert sum("turned upright" in text for text in entry(folders)["repairs"]) == 2


@pytest.mark.parametrize("orientation", [6, 8])
def test_a_size_proves_that_the_mask_is_upright(folders, xrays, orientation):
    xrays.add_kaggle(2)
    pixels, mask = pixels_and_mask(WIDE)
    save(xrays.folder / "CXR_png/MCUCXR_0001_0.png", pixels, orientation)
    save(xrays.folder / "masks/MCUCXR_0001_0.png", mask.T.copy())
    assert convert(xrays.folder) == 0
    assert entry(folders)["status"] == "repaired"


@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
@pytest.mark.parametrize("shape", [WIDE, SQUARE])
@pytest.mark.parametrize("turned", ["image", "mask"])
def test_what_the_sizes_do_not_tell_is_refused(folders, xrays, orientation, shape, turned):
    xrays.add_kaggle(2)
    pixels, mask = pixels_and_mask(shape)
    save(xrays.folder / "CXR_png/MCUCXR_0001_0.png", pixels, orientation if turned == "image" else 1)
    save(xrays.folder / "masks/MCUCXR_0001_0.png", mask, orientation if turned == "mask" else 1)
    assert convert(xrays.folder) == 0
    assert "EXIF orientation" in entry(folders)["reason"] and "Save both upright" in entry(folders)["reason"]


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("gray", [0, 255])
def test_a_mask_in_the_transparency_alone_is_used(tmp_path, mode, gray):
    _, mask = pixels_and_mask(SQUARE)
    image = Image.merge(mode, [Image.new("L", SQUARE, gray)] * (len(mode) - 1) + [Image.fromarray(mask)])
    image.save(tmp_path / "m.png")
    read = read_mask_png(tmp_path / "m.png")
    assert np.array_equal(read.pixels, mask // 255) and "transparency" in read.repairs[0]


def test_gray_and_transparency_that_agree_or_not(tmp_path):
    _, mask = pixels_and_mask(SQUARE)
    both = Image.merge("LA", [Image.fromarray(mask)] * 2)
    both.save(tmp_path / "m.png")
    assert np.array_equal(read_mask_png(tmp_path / "m.png").pixels, mask // 255)
    Image.merge("LA", [Image.fromarray(mask), Image.fromarray(255 - mask)]).save(tmp_path / "m.png")
    with pytest.raises(CaseRefused, match="another one by its transparency"):
        read_mask_png(tmp_path / "m.png")


def test_an_image_in_the_transparency_alone_is_refused(tmp_path):
    pixels, _ = pixels_and_mask(SQUARE)
    Image.merge("LA", [Image.new("L", SQUARE), Image.fromarray(pixels)]).save(tmp_path / "x.png")
    with pytest.raises(CaseRefused, match="only by its transparency"):
        read_gray_png(tmp_path / "x.png")


@pytest.mark.parametrize("value", [1, 255])
def test_a_mask_that_covers_everything_is_noted(folders, xrays, value):
    xrays.add_kaggle(1)
    save(xrays.folder / "masks/MCUCXR_0001_0.png", np.full(xrays.shape, value, np.uint8))
    assert convert(xrays.folder) == 0
    assert "covers the whole image" in entry(folders)["notes"][0]


def test_palettes_of_black_and_white_are_used_and_coloured_ones_refused(tmp_path):
    _, mask = pixels_and_mask(SQUARE)
    image = Image.fromarray(mask // 255, "P")
    for colour, refused in ((255, 255, 255), False), ((255, 0, 0), True):
        image.putpalette([0, 0, 0, *colour])
        image.save(tmp_path / "m.png")
        if refused:
            with pytest.raises(CaseRefused, match="coloured.*the organ white"):
                read_mask_png(tmp_path / "m.png")
        else:
            assert np.array_equal(read_mask_png(tmp_path / "m.png").pixels, mask // 255)


@pytest.mark.parametrize(("kind", "name"), [("JPEG", "a JPEG image"), ("TIFF", "a TIFF image"), ("BMP", "a BMP image")])
def test_another_format_named_png_is_named(tmp_path, kind, name):
    Image.new("L", SQUARE).save(tmp_path / "x.png", format=kind)
    with pytest.raises(CaseRefused, match=f"it is {name}, whatever its name says"):
        read_gray_png(tmp_path / "x.png")


def test_a_png_of_too_many_pixels_is_refused_at_once(tmp_path):
    """By its header: there are no pixels."""
    header = chunk(b"IHDR", struct.pack(">2I5B", 14000, 14000, 8, RGB, 0, 0, 0))
    end = chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + end)
    with pytest.raises(CaseRefused, match="too large: 14000x14000 pixels"):
        read_gray_png(tmp_path / "x.png")


def test_an_animation_is_refused(tmp_path):
    pixels, _ = pixels_and_mask(SQUARE)
    frames = [Image.fromarray(pixels), Image.fromarray(255 - pixels)]
    frames[0].save(tmp_path / "x.png", save_all=True, append_images=frames[1:])
    with pytest.raises(CaseRefused, match="is an animation"):
        read_gray_png(tmp_path / "x.png")


def test_a_damaged_checksum_is_seen(tmp_path):
    pixels, _ = pixels_and_mask((64, 64))
    save(tmp_path / "x.png", pixels)
    content = bytearray((tmp_path / "x.png").read_bytes())
    content[-14] ^= 1  # of the pixels' chunk
    (tmp_path / "x.png").write_bytes(bytes(content))
    with pytest.raises(CaseRefused, match="damaged"):
        read_gray_png(tmp_path / "x.png")

"""PNG images: any kind read as one gray channel, masks as {0, 1}."""

from __future__ import annotations

import struct
import warnings
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import Image

from ._errors import CaseRefused

# Colour types of PNG's header.
_GRAY, _RGB, _GRAY_ALPHA, _RGB_ALPHA = 0, 2, 4, 6
# ITU-R BT.601, as Pillow's own conversion to gray.
_LUMINANCE = np.array([0.299, 0.587, 0.114])
# Channels that differ by less than this share of the range are gray with rounding, e.g. from a JPEG.
_COLOUR_SHARE = 0.02


@dataclass
class GrayImage:
    """One gray channel.

    Attributes:
        pixels: (height, width), uint8, or uint16 if the file has 16 bits.
        is_plain: True if the file itself is 8- or 16-bit gray, so that its bytes can be taken over.
        is_coloured: True if it had colours.
        repairs: What changed on the way to gray.
        notes: What is odd.
    """

    pixels: np.ndarray
    is_plain: bool = False
    is_coloured: bool = False
    repairs: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_gray_png(file: Path) -> GrayImage:
    """Read a PNG of any kind: bilevel, gray, RGB or palette, with or without alpha, up to 16 bits.

    Raises:
        CaseRefused: if it is empty, truncated, corrupt or no PNG.
    """
    try:
        if file.stat().st_size == 0:
            raise CaseRefused(f"{file.name} is empty")
        # Palettes with transparency make Pillow warn about the conversion that is made here.
        with Image.open(file, formats=("PNG",)) as image, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            image.load()
            bits, kind = _header(file)
            if image.mode in ("P", "PA"):
                image = image.convert("RGBA")
            pixels = np.asarray(image)
        if bits == 16 and kind in (_RGB, _RGB_ALPHA):
            # Pillow would keep the high byte only.
            pixels = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
    except (OSError, SyntaxError, ValueError, RuntimeError, struct.error, zlib.error) as error:
        raise CaseRefused(f"{file.name} cannot be read as PNG: {error}") from error
    except Image.DecompressionBombError as error:
        raise CaseRefused(f"{file.name} is too large: {error}") from error

    if pixels.dtype == bool:
        return GrayImage(np.where(pixels, 255, 0).astype(np.uint8))
    gray = GrayImage(pixels, is_plain=kind == _GRAY and bits in (8, 16))
    if bits == 16 and kind == _GRAY_ALPHA:
        gray.repairs.append(f"{file.name}: 16-bit gray with alpha, of which 8 bits were read")
    if pixels.ndim == 3:
        _drop_alpha(gray, file.name)
        _drop_colour(gray, file.name)
    return gray


def read_mask_png(file: Path) -> GrayImage:
    """Read a mask as {0, 1}: 1 from half of the dtype's range on (128 of 255), unless it holds {0, 1} already.

    Raises:
        CaseRefused: as `read_gray_png`, and if it is coloured or nothing in it reaches half of the range.
    """
    mask = read_gray_png(file)
    if mask.is_coloured:
        raise CaseRefused(f"{file.name} is coloured; a mask is gray")
    highest = int(mask.pixels.max())
    if highest <= 1:
        return mask
    half = (np.iinfo(mask.pixels.dtype).max + 1) // 2
    if highest < half:
        raise CaseRefused(f"{file.name} has values up to {highest}, none of which reaches half of the range ({half})")
    levels = np.count_nonzero(np.bincount(mask.pixels.ravel()))
    if levels > 2:
        mask.repairs.append(f"{file.name}: {levels} gray levels thresholded at {half}")
    mask.pixels = (mask.pixels >= half).astype(np.uint8)
    mask.is_plain = False
    return mask


def write_gray_png(pixels: np.ndarray, file: Path) -> None:
    """Write one gray channel, (height, width), uint8 or uint16, with that many bits.

    Raises:
        OSError: naming the file, which that of a full disk does not.
    """
    try:
        Image.fromarray(pixels).save(file, format="PNG")
    except OSError as error:
        raise OSError(f"cannot write {file}: {error}") from error


def _header(file: Path) -> tuple[int, int]:
    """Bits a sample and colour type."""
    with file.open("rb") as stream:
        return struct.unpack(">BB", stream.read(26)[24:])


def _drop_alpha(gray: GrayImage, name: str) -> None:
    if gray.pixels.shape[-1] in (2, 4):
        if gray.pixels[..., -1].min() < np.iinfo(gray.pixels.dtype).max:
            gray.notes.append(f"{name}: transparency ignored")
        gray.pixels = gray.pixels[..., :-1]


def _drop_colour(gray: GrayImage, name: str) -> None:
    colours = gray.pixels
    difference = int((colours.max(axis=-1) - colours.min(axis=-1)).max())
    if difference == 0:
        gray.pixels = np.ascontiguousarray(colours[..., 0])
        return
    gray.pixels = np.rint(colours @ _LUMINANCE).astype(colours.dtype)
    full = np.iinfo(colours.dtype).max
    if difference > _COLOUR_SHARE * full:
        gray.is_coloured = True
        gray.repairs.append(f"{name} is coloured (channels differ by up to {difference} of {full}): luminance taken")

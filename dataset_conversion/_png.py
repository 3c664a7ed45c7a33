"""PNG images: any kind is read as one upright gray channel; masks as {0, 1}."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import Image

from ..images.faults import ImageFault
from ..images.png import GRAY, GRAY_ALPHA, RGB, RGB_ALPHA, check_png
from ._errors import CaseRefused

# ITU-R BT.601, as Pillow's own conversion to gray.
_LUMINANCE = np.array([0.299, 0.587, 0.114])
# Channels that differ by less than this share of the range are gray up to rounding, e.g. from a JPEG.
_COLOUR_SHARE = 0.02
_BAND_ROWS = 256


@dataclass
class GrayImage:
    """One gray channel.

    Attributes:
        pixels: (height, width), uint8, or uint16 if the file has 16 bits; upright, as viewers show it.
        is_plain: True if the file itself is upright 8- or 16-bit gray, so that its bytes can be copied.
        is_coloured: True if it had colours.
        alpha: Opacity, like `pixels`; None if the file has none or is opaque everywhere.
        orientation: EXIF's orientation, which was applied; 1 is upright.
        stored_shape: (height, width) before that.
        repairs: What changed on the way to gray.
        notes: What is odd.
    """

    pixels: np.ndarray
    is_plain: bool = False
    is_coloured: bool = False
    alpha: np.ndarray | None = None
    orientation: int = 1
    stored_shape: tuple[int, int] = (0, 0)
    repairs: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_gray_png(file: Path) -> GrayImage:
    """Read a PNG of any kind: bilevel, gray, RGB or palette, with or without alpha, up to 16 bits.

    Raises:
        CaseRefused: if it is empty, truncated, corrupt, too large or not a PNG, or if only its transparency shows
            anything.
    """
    gray = _read(file)
    if gray.alpha is not None:
        if gray.pixels.min() == gray.pixels.max():
            raise CaseRefused(f"{file.name} shows something only by its transparency; save it as gray")
        gray.notes.append(f"{file.name}: transparency ignored")
    return gray


def read_mask_png(file: Path) -> GrayImage:
    """Read a mask as {0, 1}: 1 from half of the dtype's range on (128 of 255), unless it holds {0, 1} already.

    The shape may be in the transparency instead, if the gray is constant.

    Raises:
        CaseRefused: as `read_gray_png`, and if it is coloured, if nothing in it reaches half of the range, or if gray
            and transparency show different shapes.
    """
    mask = _read(file)
    if mask.is_coloured:
        raise CaseRefused(f"{file.name} is coloured; a mask is gray. Save it as gray: the organ white, the rest black")
    if mask.alpha is not None:
        _take_alpha(mask, file.name)
    highest = int(mask.pixels.max())
    if highest > 1:
        half = _half(mask.pixels)
        if highest < half:
            raise CaseRefused(
                f"{file.name} has values up to {highest}, none of which reaches half of the range ({half})"
            )
        levels = np.count_nonzero(np.bincount(mask.pixels.ravel()))
        if levels > 2:
            mask.repairs.append(f"{file.name}: {levels} gray levels thresholded at {half}")
        mask.pixels = (mask.pixels >= half).astype(np.uint8)
        mask.is_plain = False
    if mask.pixels.all():
        mask.notes.append(f"{file.name} covers the whole image; was the mask lost?")
    return mask


def write_gray_png(pixels: np.ndarray, file: Path) -> None:
    """Write one gray channel, (height, width), uint8 or uint16, with that many bits.

    Raises:
        OSError: naming the file, unlike the system's own error on a full disk.
    """
    try:
        Image.fromarray(pixels).save(file, format="PNG")
    except OSError as error:
        raise OSError(f"cannot write {file}: {error}") from error


def _read(file: Path) -> GrayImage:
    try:
        header = check_png(file)
        # Palettes with transparency make Pillow warn about the conversion that is made here.
        with Image.open(file, formats=("PNG",)) as image, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            image.load()
            if image.mode in ("P", "PA"):
                image = image.convert("RGBA")
            pixels = np.asarray(image)
        if header.bits == 16 and header.kind in (RGB, RGB_ALPHA):
            # Pillow would keep the high byte only.
            pixels = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
    except ImageFault as fault:
        raise CaseRefused(f"{file.name} {fault.reason}") from fault
    except (OSError, SyntaxError, ValueError, RuntimeError) as error:
        raise CaseRefused(f"{file.name} cannot be read as PNG: {error}") from error

    if pixels.dtype == bool:
        pixels = np.where(pixels, 255, 0).astype(np.uint8)
    is_plain = header.kind == GRAY and header.bits in (8, 16) and header.orientation == 1
    gray = GrayImage(pixels, is_plain, orientation=header.orientation, stored_shape=header.shape)
    if header.bits == 16 and header.kind == GRAY_ALPHA:
        gray.repairs.append(f"{file.name}: 16-bit gray with alpha, of which 8 bits were read")
    if pixels.ndim == 3:
        _split_alpha(gray)
        _drop_colour(gray, file.name)
    if header.orientation != 1:
        gray.pixels = _upright(gray.pixels, header.orientation)
        gray.alpha = None if gray.alpha is None else _upright(gray.alpha, header.orientation)
        gray.repairs.append(f"{file.name}: turned upright, as its EXIF orientation {header.orientation} asks")
    return gray


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation, 2 to 8 (CIPA DC-008, 4.6.4, Orientation)."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    vertical, horizontal = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(pixels[:: -1 if vertical else 1, :: -1 if horizontal else 1])


def _take_alpha(mask: GrayImage, name: str) -> None:
    """Let a mask's transparency count, unless it contradicts its gray."""
    opaque = mask.alpha >= _half(mask.alpha)
    if mask.pixels.min() == mask.pixels.max():
        mask.repairs.append(f"{name}: the shape was in its transparency")
        mask.pixels = opaque.astype(np.uint8)
    elif np.any(~opaque & (mask.pixels >= (1 if mask.pixels.max() <= 1 else _half(mask.pixels)))):
        raise CaseRefused(f"{name} shows one shape in gray and another one by its transparency; save it as gray")
    mask.is_plain = False


def _half(values: np.ndarray) -> int:
    return (np.iinfo(values.dtype).max + 1) // 2


def _split_alpha(gray: GrayImage) -> None:
    if gray.pixels.shape[-1] in (2, 4):
        alpha = gray.pixels[..., -1]
        if alpha.min() < np.iinfo(alpha.dtype).max:
            gray.alpha = alpha
        gray.pixels = gray.pixels[..., :-1]


def _drop_colour(gray: GrayImage, name: str) -> None:
    colours = gray.pixels
    difference = max(int((band.max(axis=-1) - band.min(axis=-1)).max()) for band in _bands(colours))
    if difference == 0:
        gray.pixels = np.ascontiguousarray(colours[..., 0])
        return
    gray.pixels = np.concatenate([np.rint(band @ _LUMINANCE).astype(colours.dtype) for band in _bands(colours)])
    full = np.iinfo(colours.dtype).max
    if difference > _COLOUR_SHARE * full:
        gray.is_coloured = True
        gray.repairs.append(f"{name} is coloured (channels differ by up to {difference} of {full}): luminance taken")


def _bands(colours: np.ndarray) -> Iterator[np.ndarray]:
    """A few rows at a time: what is computed from them takes many times their memory."""
    return (colours[start : start + _BAND_ROWS] for start in range(0, len(colours), _BAND_ROWS))

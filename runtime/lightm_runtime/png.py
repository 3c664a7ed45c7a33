"""PNG with the values that skimage gives nnU-Net: SimpleITK adds what is transparent, and makes 255 of one bit."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import SimpleITK as sitk

from .faults import ImageError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, GREY_ALPHA, RGB_ALPHA = 0, 2, 4, 6  # colour types of the header


def read_png(path: Path) -> sitk.Image:
    """Read all channels; what is said to be transparent is not one.

    Raises:
        ImageError: if the file is no PNG, or one that nnU-Net does not read.
        RuntimeError: from SimpleITK, if it is truncated or damaged.
    """
    content = path.read_bytes()
    if not content.startswith(SIGNATURE) or content[12:16] != b"IHDR" or len(content) < 33:
        raise ImageError(f"{path}: cannot be read as PNG: it does not begin as one")
    chunks = list(_chunks(content))
    names = {name for name, _ in chunks}
    bits, kind = content[24], content[25]
    if b"acTL" in names:
        raise ImageError(f"{path}: is an animation; save one image of it")
    if kind == GREY_ALPHA:
        raise ImageError(
            f"{path}: is grey with transparency, which nnU-Net does not read: save it without transparency"
        )
    if b"tRNS" in names:
        opaque = SIGNATURE + b"".join(content[chunk] for name, chunk in chunks if name != b"tRNS")
        image = read_copy(opaque, ".png", "PNGImageIO")
    else:
        image = sitk.ReadImage(str(path), sitk.sitkUnknown, "PNGImageIO")
    if bits == 1 and kind == GREY:
        image = sitk.Cast(image > 0, sitk.sitkUInt8)
    if bits == 16 and kind in (RGB, RGB_ALPHA):
        # As Pillow reads 16 bits in colour: the upper eight.
        array = sitk.GetArrayViewFromImage(image)
        image = sitk.GetImageFromArray((array >> 8).astype("u1"), isVector=True)
    return image


def read_copy(content: bytes, ending: str, reader: str) -> sitk.Image:
    """Read changed bytes of a file: SimpleITK reads from files alone."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, f"image{ending}")
        copy.write_bytes(content)
        return sitk.ReadImage(str(copy), sitk.sitkUnknown, reader)


def _chunks(content: bytes) -> Iterator[tuple[bytes, slice]]:
    place = len(SIGNATURE)
    while place + 8 <= len(content):
        length, name = struct.unpack_from(">I4s", content, place)
        yield name, slice(place, place + length + 12)
        place += length + 12

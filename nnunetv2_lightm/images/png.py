"""A PNG file's header and chunks, checked before a pixel is decoded."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from PIL import Image

from .bounds import require_plausible_size
from .faults import ImageFault
from .inflation import Inflation
from .kinds import PNG_SIGNATURE, kind_of

# Colour types of PNG's header, and their channels; a palette stands for colours.
GRAY, RGB, PALETTE, GRAY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
_SAMPLES = {GRAY: 1, RGB: 3, PALETTE: 1, GRAY_ALPHA: 2, RGB_ALPHA: 4}
_BITS = {GRAY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GRAY_ALPHA: (8, 16), RGB_ALPHA: (8, 16)}
_CHUNK_BYTES = 1 << 20
_EXIF_ORIENTATION = 0x0112
DAMAGED_PIXELS = "cannot be read as PNG: its pixels are damaged, or not those of its header"
_MAY_HOLD_EXIF = {b"eXIf", b"tEXt", b"zTXt", b"iTXt"}


@dataclass(frozen=True)
class Png:
    """A PNG file whose chunks are whole.

    Attributes:
        path: The file.
        shape: (height, width), as stored.
        bits: Bits per sample.
        kind: Colour type: GRAY, RGB, PALETTE, GRAY_ALPHA or RGB_ALPHA.
        orientation: EXIF's: 1 is upright; 2 to 8 ask viewers to rotate or flip the image. nnU-Net ignores it.
    """

    path: Path
    shape: tuple[int, int]
    bits: int
    kind: int
    orientation: int


def check_png(path: Path) -> Png:
    """Read the header, and compare each chunk with its checksum, which Pillow does not do for pixels.

    Raises:
        ImageFault: if the file is unreadable, empty, not a PNG, truncated, damaged, or has more pixels than Pillow
            reads, its limit against decompression bombs (twice PIL.Image.MAX_IMAGE_PIXELS, some 179 million).
    """
    try:
        with path.open("rb") as stream:
            shape, bits, kind, needed_bytes = _check_header(path, stream)
            names = _check_chunks(path, stream, needed_bytes)
            if kind == PALETTE and b"PLTE" not in names:
                raise ImageFault(path, "cannot be read as PNG: it has no palette, though its header says so")
        return Png(path, shape, bits, kind, _orientation(path) if names & _MAY_HOLD_EXIF else 1)
    except OSError as error:
        raise ImageFault(path, f"cannot be read: {error.strerror or error}") from error


def _check_header(path: Path, stream: IO[bytes]) -> tuple[tuple[int, int], int, int, int | None]:
    """Shape, bits per sample, colour type, and the bytes of all rows; None if interlaced, because the rows differ."""
    first = stream.read(132)
    if not first:
        raise ImageFault(path, "is empty")
    if not first.startswith(PNG_SIGNATURE):
        kind = kind_of(first)
        what = f"it is {kind}, whatever its name says; save it as PNG" if kind else "it is no PNG image"
        raise ImageFault(path, f"cannot be read as PNG: {what}")
    stream.seek(len(PNG_SIGNATURE))
    if len(first) < 33 or first[12:16] != b"IHDR":
        raise ImageFault(path, "cannot be read as PNG: it has no header")
    width, height, bits, kind = struct.unpack(">IIBB", first[16:26])
    if bits not in _BITS.get(kind, ()) or not (width and height):
        raise ImageFault(
            path, f"cannot be read as PNG: damaged header ({width}x{height}, {bits} bits, colour type {kind})"
        )
    limit = None if Image.MAX_IMAGE_PIXELS is None else 2 * Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise ImageFault(path, f"is too large: {width}x{height} pixels, {limit // 10**6} million are the limit")
    needed_bytes = ((width * bits * _SAMPLES[kind] + 7) // 8 + 1) * height
    require_plausible_size(path, needed_bytes, compressed=True, what=f"{width}x{height} pixels")
    return (height, width), bits, kind, needed_bytes if first[28] == 0 else None


def _check_chunks(path: Path, stream: IO[bytes], needed_bytes: int | None) -> set[bytes]:
    """Compare each chunk with its checksum, and the length of the pixels' stream with the header.

    Returns: the names that occur.
    """
    name, names, pixels = b"", set(), Inflation(needed_bytes)
    while name != b"IEND":
        start = stream.read(8)
        if len(start) < 8:
            raise ImageFault(path, "cannot be read as PNG: it is truncated")
        length, name = struct.unpack(">I4s", start)
        checksum = zlib.crc32(name)
        while length and (piece := stream.read(min(length, _CHUNK_BYTES))):
            checksum, length = zlib.crc32(piece, checksum), length - len(piece)
            if name == b"IDAT":
                _inflate(path, pixels, piece)
        if length or len(end := stream.read(4)) < 4:
            raise ImageFault(path, "cannot be read as PNG: it is truncated")
        if int.from_bytes(end, "big") != checksum:
            raise ImageFault(path, f"cannot be read as PNG: its part {name!r} is damaged (wrong checksum)")
        names.add(name)
    if b"acTL" in names:
        raise ImageFault(path, "is an animation, which nnU-Net's reader cannot read; save one image of it")
    if b"IDAT" not in names:
        raise ImageFault(path, "cannot be read as PNG: it has no pixels")
    if not pixels.has_ended or needed_bytes not in (None, pixels.num_bytes):
        raise ImageFault(path, DAMAGED_PIXELS)
    return names


def _inflate(path: Path, pixels: Inflation, piece: bytes) -> None:
    try:
        pixels.add(piece)
    except zlib.error as error:
        raise ImageFault(path, DAMAGED_PIXELS) from error


def _orientation(path: Path) -> int:
    """The orientation in the eXIf chunk or its older equivalents; any value but 1 to 8 asks for nothing."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error) as error:
        raise ImageFault(path, f"cannot be read as PNG: {error}") from error
    return value if isinstance(value, int) and 1 <= value <= 8 else 1

"""TIFF with the values that tifffile gives nnU-Net; its pages are counted before SimpleITK reads them.

SimpleITK reads as many pages as it finds, colours instead of a palette's indices, and makes four colours of 8 bits of
what it does not know.
"""

from __future__ import annotations

import json
import math
import mmap
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from .faults import ImageError
from .png import read_copy

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, STRIPS, ORIENTATION, SAMPLES = 256, 257, 258, 259, 262, 273, 274, 277
STRIP_BYTES, PLANAR, TILES, TILE_BYTES, SAMPLE_FORMAT, DESCRIPTION = 279, 284, 324, 325, 339, 270
BLACK_IS_ZERO, PALETTE, LARGEST_KNOWN = 1, 3, 3
FLOAT = 3
BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
# Types of a field that hold whole numbers, or text.
INTEGERS = {1: "B", 2: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
MOST_PAGES = 100_000


@dataclass(frozen=True)
class Page:
    """One directory: the fields by tag, and where the value of ``PHOTOMETRIC`` stands."""

    fields: dict[int, tuple[int, ...]]
    photometric_at: int

    def number(self, tag: int, default: int = 0) -> int:
        return self.fields.get(tag, (default,))[0]

    @property
    def is_rendered(self) -> bool:
        """Whether SimpleITK makes red, green, blue and opacity of 8 bits of it, of grey three times the same."""
        apart = self.number(SAMPLES, 1) > 1 and self.number(PLANAR, 1) == 2
        return self.number(BITS, 1) == 1 or TILES in self.fields or apart

    @property
    def layout(self) -> tuple[Any, ...]:
        """What all pages of an image have in common."""
        return tuple(self.fields.get(tag) for tag in (WIDTH, HEIGHT, BITS, PHOTOMETRIC, SAMPLES, PLANAR, SAMPLE_FORMAT))

    @property
    def stack(self) -> list[int]:
        """Lengths of the axes along which pages lie, as ImageJ and tifffile write them into the first; or none."""
        text = "".join(chr(code) for code in self.fields.get(DESCRIPTION, ()) if 0 < code < 256)
        if text.startswith("ImageJ="):
            told = dict(re.findall(r"(?m)^(images|channels|slices|frames)=(\d+)", text))
            axes = [int(told.get(axis, 1)) for axis in ("channels", "slices", "frames")]
            return axes if math.prod(axes) > 1 else [int(told.get("images", 1))]
        try:
            shape = json.loads(text)["shape"]
            plane = self.number(WIDTH) * self.number(HEIGHT) * self.number(SAMPLES, 1)
            inner = next(i for i in range(len(shape), -1, -1) if math.prod(shape[i:]) == plane)
        except (ValueError, KeyError, TypeError, StopIteration, RecursionError):
            return []
        return shape[:inner]


def planes_of(path: Path) -> int:
    """The number of pages. Raises ImageError if the file is truncated, or no TIFF."""
    with _content_of(path) as content:
        return len(_pages(path, content))


def read_tiff(path: Path) -> sitk.Image:
    """Read all pages: a page of one plane is an image of two dimensions.

    Raises:
        ImageError: if the file is truncated, no TIFF, or one whose values SimpleITK changes.
        RuntimeError: from SimpleITK, if its pixels are damaged.
    """
    with _content_of(path) as content:
        pages = _pages(path, content)
        _require_kept(path, pages)
        return _read(path, content, pages)


@contextmanager
def _content_of(path: Path) -> Iterator[mmap.mmap]:
    """The bytes of a file, of which the system reads those that are looked at."""
    with path.open("rb") as stream:
        if not stream.read(1):
            raise ImageError(f"{path}: is empty")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            yield content


def _require_kept(path: Path, pages: list[Page]) -> None:
    """Raises ImageError unless SimpleITK keeps the values, or `_read` can mend them."""
    first = pages[0]
    if any(page.layout != first.layout for page in pages):
        raise ImageError(f"{path}: has pages of different sizes or kinds; save those of one image alone")
    axes = [length for length in first.stack if length > 1]
    if len(axes) > 1 or math.prod(axes) > len(pages):
        raise ImageError(
            f"{path}: is a stack of {' by '.join(map(str, axes))} planes in {len(pages)} page(s); one axis, and a page "
            "for each plane, is needed: save each channel or time alone"
        )
    bits, samples = set(first.fields.get(BITS, (1,))), first.number(SAMPLES, 1)
    photometric, orientation = first.number(PHOTOMETRIC), first.number(ORIENTATION, 1)
    is_float = FLOAT in first.fields.get(SAMPLE_FORMAT, ())
    fits = len(bits) == 1 and bits <= ({1, 8} if first.is_rendered else {8, 16, 32}) and not (is_float and bits != {32})
    if not fits or samples not in (1, 3) or photometric > LARGEST_KNOWN or orientation != 1:
        raise ImageError(
            f"{path}: is a TIFF of {samples} sample(s) of {'/'.join(map(str, sorted(bits)))} bits in "
            f"{'tiles' if TILES in first.fields else 'strips'}, colours {photometric}, orientation {orientation}, "
            "whose values would change: save it again in strips of 8, 16 or 32 bits, grey or RGB, upright"
        )


def _read(path: Path, content: mmap.mmap, pages: list[Page]) -> sitk.Image:
    first = pages[0]
    samples, photometric = first.number(SAMPLES, 1), first.number(PHOTOMETRIC)
    if photometric == PALETTE or (first.is_rendered and samples == 1 and photometric != BLACK_IS_ZERO):
        # Named grey, a palette's indices come as they are, and zero stays zero.
        changed, order = bytearray(content), "<" if content[:2] == b"II" else ">"
        for page in pages:
            struct.pack_into(f"{order}H", changed, page.photometric_at, BLACK_IS_ZERO)
        image = read_copy(bytes(changed), ".tif", "TIFFImageIO")
    else:
        image = sitk.ReadImage(str(path), sitk.sitkUnknown, "TIFFImageIO")
    if first.is_rendered:
        parts = [sitk.VectorIndexSelectionCast(image, index) for index in range(samples)]
        image = sitk.Compose(parts) if samples > 1 else parts[0]
    return sitk.Cast(image > 0, sitk.sitkUInt8) if first.number(BITS, 1) == 1 else image


def _pages(path: Path, content: mmap.mmap) -> list[Page]:
    """All directories; each with its strips or tiles lies within the file."""
    order = {b"II": "<", b"MM": ">"}.get(content[:2])
    version = struct.unpack_from(f"{order}H", content, 2)[0] if order and len(content) >= 16 else None
    if version not in (42, 43):
        raise ImageError(f"{path}: cannot be read as TIFF: it does not begin as one")
    big = version == 43
    pages: list[Page] = []
    try:
        (place,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", content, 8 if big else 4)
        while place:
            page, place = _page(content, place, order, big)
            _require_pixels(path, page, len(content))
            pages.append(page)
            if len(pages) > MOST_PAGES:
                raise ImageError(f"{path}: is damaged: its pages have no end")
    except (struct.error, OverflowError) as error:
        raise ImageError(f"{path}: is truncated: it ends within the directory of page {len(pages) + 1}") from error
    if not pages:
        raise ImageError(f"{path}: has no pages")
    return pages


def _page(content: mmap.mmap, place: int, order: str, big: bool) -> tuple[Page, int]:
    """The directory at a place, and the place of the next one, 0 after the last."""
    pointer, entry_bytes = ("Q", 20) if big else ("I", 12)
    (count,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", content, place)
    first = place + (8 if big else 2)
    fields, photometric_at = {}, 0
    for entry in range(first, first + count * entry_bytes, entry_bytes):
        tag, kind, length = struct.unpack_from(f"{order}HH{pointer}", content, entry)
        value_at = entry + (12 if big else 8)
        if length * BYTES.get(kind, 1) > (8 if big else 4):
            (value_at,) = struct.unpack_from(f"{order}{pointer}", content, value_at)
        if value_at + length * BYTES.get(kind, 1) > len(content):
            raise struct.error("a field lies behind the end")
        if kind not in INTEGERS:
            continue
        fields[tag] = struct.unpack_from(f"{order}{length}{INTEGERS[kind]}", content, value_at)
        if tag == PHOTOMETRIC:
            photometric_at = value_at
    (following,) = struct.unpack_from(f"{order}{pointer}", content, first + count * entry_bytes)
    return Page({tag: values for tag, values in fields.items() if values}, photometric_at), following


def _require_pixels(path: Path, page: Page, file_bytes: int) -> None:
    begins = page.fields.get(STRIPS) or page.fields.get(TILES)
    lengths = page.fields.get(STRIP_BYTES) or page.fields.get(TILE_BYTES)
    if not begins or not lengths or len(begins) != len(lengths) or not page.number(WIDTH) or not page.number(HEIGHT):
        raise ImageError(f"{path}: has a damaged header: a page without size or pixels")
    if any(begin + length > file_bytes for begin, length in zip(begins, lengths)):
        raise ImageError(f"{path}: is truncated: pixels of a page lie behind its end")
    needed = page.number(WIDTH) * page.number(HEIGHT) * sum(page.fields.get(BITS, (1,))) // 8
    if page.number(COMPRESSION, 1) == 1 and sum(lengths) < needed:
        raise ImageError(f"{path}: is truncated: {needed - sum(lengths)} bytes of a page's pixels are missing")

"""What SimpleITK hides of GIPL, compressed MetaImage and NRRD: bytes that are missing or damaged."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from pathlib import Path

GIPL_HEADER = 256
GIPL_BYTES = {7: 1, 8: 1, 15: 2, 16: 2, 31: 4, 32: 4, 64: 4, 65: 8}  # of a voxel, by the header's type
MOST_HEADER_BYTES = 1 << 20
PIECE = 1 << 20
ZLIB_OR_GZIP = 47  # zlib's window bits for "whichever it is"
ELSEWHERE = "has its voxels in another file: save it as one file"
NO_END = "is truncated: its compressed stream ends early"


def gipl_fault(path: Path) -> str | None:
    """Why a GIPL file, compressed or not, is not whole; None: it is."""
    compressed = path.name.lower().endswith(".gz")
    with gzip.open(path) if compressed else path.open("rb") as stream:
        try:
            header = stream.read(GIPL_HEADER)
            found = sum(map(len, iter(lambda: stream.read(PIECE), b"")))
        except EOFError:
            return NO_END
        except (gzip.BadGzipFile, zlib.error) as error:
            return f"is damaged: {error}"
    if len(header) < GIPL_HEADER:
        return "is truncated within its header"
    shape = [int.from_bytes(header[place : place + 2], "big") for place in (0, 2, 4, 6)]
    kind = int.from_bytes(header[8:10], "big")
    if kind not in GIPL_BYTES:
        return f"has a damaged header: image type {kind}"
    needed = math.prod(max(1, length) for length in shape) * GIPL_BYTES[kind]
    return f"is truncated: {needed - found} bytes of {needed} are missing" if found < needed else None


def meta_fault(path: Path) -> str | None:
    """Why a MetaImage's compressed voxels are not whole; None: they are, or SimpleITK counts them."""
    header, begin = _header(path, rb"(?m)^ElementDataFile *= *LOCAL *\r?\n")
    if begin is None:
        return ELSEWHERE if re.search(rb"(?m)^ElementDataFile *=", header) else "cannot be read: it has no header"
    compressed = re.search(rb"(?mi)^CompressedData *= *True", header[:begin])
    return _fault_of_stream(path, begin) if compressed else None


def nrrd_fault(path: Path) -> str | None:
    """Why an NRRD file's compressed voxels are not whole; None: they are, or SimpleITK counts them."""
    header, begin = _header(path, rb"\r?\n\r?\n")
    text = header[:begin]
    if re.search(rb"(?mi)^data ?file *:(?!=)", text):  # "key:=value" is the user's own
        return ELSEWHERE
    if begin is None:
        return "cannot be read: it has no header"
    return _fault_of_stream(path, begin) if re.search(rb"(?mi)^encoding *: *(gz|gzip) *\r?$", text) else None


def _header(path: Path, end: bytes) -> tuple[bytes, int | None]:
    """The first bytes, and where the voxels begin."""
    with path.open("rb") as stream:
        first = stream.read(MOST_HEADER_BYTES)
    found = re.search(end, first)
    return first, found.end() if found else None


def _fault_of_stream(path: Path, begin: int) -> str | None:
    """SimpleITK says where voxels are missing, but not where the checksum tells that they are others."""
    inflation = zlib.decompressobj(ZLIB_OR_GZIP)
    with path.open("rb") as stream:
        stream.seek(begin)
        try:
            # A piece at a time on both sides: a small file may inflate to any size.
            while not inflation.eof and (piece := inflation.unconsumed_tail or stream.read(PIECE)):
                inflation.decompress(piece, PIECE)
        except zlib.error as error:
            return f"is damaged: its compressed voxels cannot be read ({error})"
    return None if inflation.eof else NO_END

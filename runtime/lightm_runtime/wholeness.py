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
MOST_DIMENSIONS = 5  # of SimpleITK
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
    """Why a MetaImage is not whole; None: it is, or SimpleITK counts its voxels."""
    if (fault := meta_header_fault(path)) is not None:
        return fault
    fields, begin = _meta_header(path)
    return _fault_of_stream(path, begin) if _is_compressed(fields) else None


def meta_header_fault(path: Path) -> str | None:
    """Why SimpleITK may not read a MetaImage, not even its header; None: it may."""
    fields, begin = _meta_header(path)
    if "ElementDataFile" not in fields:
        return "cannot be read: it has no MetaImage header"
    if fields["ElementDataFile"] != "LOCAL":
        return ELSEWHERE
    count = len(fields.get("DimSize", "").split())
    if fields.get("NDims") != str(count) or count > MOST_DIMENSIONS:  # SimpleITK would write past its memory
        return (
            f"has a damaged header: NDims {fields.get('NDims')}, and {count} numbers in DimSize; needed: as many as "
            f"NDims, {MOST_DIMENSIONS} at most"
        )
    if fields.get("HeaderSize", "0") != "0":  # SimpleITK would read that many bytes too late, and make up the rest
        return f"has a damaged header: HeaderSize {fields['HeaderSize']}, and its voxels in the same file"
    found = path.stat().st_size - begin
    if _is_compressed(fields) and fields.get("CompressedDataSize") != str(found):  # SimpleITK makes up what is beyond
        return (
            f"is truncated or has a damaged header: {found} bytes of compressed voxels follow it, and its "
            f"CompressedDataSize is {fields.get('CompressedDataSize', 'missing')}"
        )
    return None


def nrrd_fault(path: Path) -> str | None:
    """Why an NRRD file's compressed voxels are not whole; None: they are, or SimpleITK counts them."""
    header, begin = _header(path, rb"\r?\n\r?\n")
    text = header[:begin]
    if re.search(rb"(?mi)^data ?file *:(?!=)", text):  # "key:=value" is the user's own
        return ELSEWHERE
    if begin is None:
        return "cannot be read: it has no header"
    return _fault_of_stream(path, begin) if re.search(rb"(?mi)^encoding *: *(gz|gzip) *\r?$", text) else None


def _meta_header(path: Path) -> tuple[dict[str, str], int]:
    """Its fields, and where the voxels begin; no fields where it is not one line for each."""
    fields: dict[str, str] = {}
    with path.open("rb") as stream:
        while "ElementDataFile" not in fields:
            key, equals, value = stream.readline(MOST_HEADER_BYTES).decode("latin-1").partition("=")
            if not equals or key.strip() in fields or stream.tell() > MOST_HEADER_BYTES:
                return {}, 0
            fields[key.strip()] = value.strip()
        return fields, stream.tell()


def _is_compressed(fields: dict[str, str]) -> bool:
    return fields.get("CompressedData", "").startswith(("T", "t", "1"))  # as SimpleITK reads it


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

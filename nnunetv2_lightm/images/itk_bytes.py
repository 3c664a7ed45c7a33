"""Checks of NRRD, MetaImage and GIPL files by their own bytes: whether all voxels are there.

Readers do not always say: ITK accepts a truncated GIPL, and a MetaImage whose compressed voxels are damaged, and fills
in what is missing.
"""

from __future__ import annotations

import math
import re
import zlib
from pathlib import Path
from typing import IO

from .bounds import MAX_HEADER_BYTES, require_plausible_size
from .faults import ImageFault
from .inflation import ZLIB_OR_GZIP, Inflation

META_BYTES = {
    **dict.fromkeys(("MET_CHAR", "MET_UCHAR"), 1),
    **dict.fromkeys(("MET_SHORT", "MET_USHORT"), 2),
    **dict.fromkeys(("MET_INT", "MET_UINT", "MET_LONG", "MET_ULONG", "MET_FLOAT"), 4),
    **dict.fromkeys(("MET_LONG_LONG", "MET_ULONG_LONG", "MET_DOUBLE"), 8),
}
GIPL_BYTES = {7: 1, 8: 1, 15: 2, 16: 2, 31: 4, 32: 4, 64: 4, 65: 8}
GIPL_HEADER = 256
_PIECE = 4 << 20


def require_whole(path: Path, *, thorough: bool = True) -> int:
    """Read the voxels' bytes to their end. Returns how many there are, uncompressed.

    Args:
        path: The file.
        thorough: False: of compressed voxels, only whether so many may be there is checked.
    Raises:
        ImageFault: if the header is damaged, or fewer or more voxels follow it than it says.
    """
    check = {".mha": _check_meta, ".nrrd": _check_nrrd, ".gipl": _check_gipl}[path.suffix.lower()]
    try:
        with path.open("rb") as stream:
            return check(path, stream, thorough)
    except OSError as error:
        raise ImageFault(path, f"cannot be read: {error.strerror or error}") from error


def _check_meta(path: Path, stream: IO[bytes], thorough: bool) -> int:
    fields = {}
    while "ElementDataFile" not in fields:
        key, equals, value = _line(path, stream).partition("=")
        if not equals:
            raise ImageFault(path, "cannot be read: it has no MetaImage header")
        _require(path, key.strip() not in fields, f"has a damaged header: {key.strip()} twice")
        fields[key.strip()] = value.strip()
    _require_inside(path, fields["ElementDataFile"], "LOCAL")
    _require(path, fields.get("BinaryData", "True").lower() == "true", "holds its voxels as text")
    size = META_BYTES.get(fields.get("ElementType", ""))
    for key in ("HeaderSize", "ElementNumberOfChannels"):
        _require(path, re.fullmatch(r"\d{1,4}", fields.get(key, "0")), f"has a damaged header: {key} {fields.get(key)}")
    _require(path, int(fields.get("HeaderSize", 0)) == 0, "has a HeaderSize, which goes with voxels in another file")
    sizes = fields.get("DimSize", "")
    needed = _product(path, sizes) * int(fields.get("ElementNumberOfChannels", 1))
    # ITK writes past its memory where NDims is not the number of sizes.
    _require(path, fields.get("NDims") == str(len(sizes.split())), f"has a damaged header: NDims {fields.get('NDims')}")
    _require(path, size is not None, f"has a damaged header: ElementType {fields.get('ElementType')}")
    compressed = fields.get("CompressedData", "False").lower() == "true"
    if compressed:
        _check_compressed_size(path, fields.get("CompressedDataSize", ""), path.stat().st_size - stream.tell())
    return _check_length(path, stream, needed * size, compressed=compressed, thorough=thorough)


def _check_compressed_size(path: Path, stated: str, found: int) -> None:
    """Compare a MetaImage's compressed bytes with its header: ITK inflates only as many, and makes up the rest."""
    _require(path, re.fullmatch(r"\d{1,18}", stated), f"has a damaged header: CompressedDataSize {stated or 'missing'}")
    _require(path, found >= int(stated), f"is truncated: {found} bytes of compressed voxels of {stated}")
    _require(path, found == int(stated), f"holds more than the {stated} bytes of compressed voxels of its header")


def _check_nrrd(path: Path, stream: IO[bytes], thorough: bool) -> int:
    _require(path, _line(path, stream).startswith("NRRD"), "cannot be read: it has no NRRD header")
    fields = {}
    while line := _line(path, stream):
        key, colon, value = line.partition(":")
        if colon and not line.startswith("#") and not value.startswith("="):  # "key:=value" is the user's own
            fields[key.strip().lower().replace(" ", "")] = value.strip()
    _require_inside(path, fields.get("datafile"), None)
    encoding = fields.get("encoding", "").lower()
    known = encoding in ("raw", "gz", "gzip")  # ITK reads no others but text
    _require(
        path, known, f"holds its voxels as {encoding or 'nothing known'}, not raw or gzip: save it as one of these"
    )
    for key in ("lineskip", "byteskip"):
        _require(path, fields.get(key, "0") == "0", f"has a {key} before its voxels")
    needed = _product(path, fields.get("sizes", "")) * _nrrd_bytes(path, fields.get("type", ""))
    return _check_length(path, stream, needed, compressed=encoding != "raw", thorough=thorough)


def _nrrd_bytes(path: Path, kind: str) -> int:
    """Bytes of a voxel, by any of NRRD's names for its types: `unsigned short`, `ushort`, `uint16_t`."""
    name = re.sub(r"^(signed |unsigned |u)|( int)?$|_t$", "", kind.lower()).replace("short int", "short")
    sizes = {
        **dict.fromkeys(("char", "int8"), 1),
        **dict.fromkeys(("short", "int16"), 2),
        **dict.fromkeys(("int", "int32", "float"), 4),
        **dict.fromkeys(("longlong", "long long", "int64", "double"), 8),
    }
    _require(path, name in sizes, f"has a damaged header: type {kind}")
    return sizes[name]


def _check_gipl(path: Path, stream: IO[bytes], thorough: bool) -> int:
    header = stream.read(GIPL_HEADER)
    _require(path, len(header) == GIPL_HEADER, "is truncated within its header")
    shape = [int.from_bytes(header[place : place + 2], "big") for place in (0, 2, 4, 6)]
    kind = int.from_bytes(header[8:10], "big")
    _require(path, kind in GIPL_BYTES, f"has a damaged header: image type {kind}")
    needed = math.prod(max(1, length) for length in shape) * GIPL_BYTES[kind]
    return _check_length(path, stream, needed, compressed=False, thorough=thorough)


def _check_length(path: Path, stream: IO[bytes], needed: int, *, compressed: bool, thorough: bool) -> int:
    """Require exactly that many bytes to follow; a compressed stream is read to its checksum."""
    what = f"{needed} bytes of voxels"
    require_plausible_size(path, needed, compressed=compressed, what=what)
    if compressed and not thorough:
        return needed
    found = _inflated_bytes(path, stream, needed) if compressed else path.stat().st_size - stream.tell()
    _require(path, found >= needed, f"is truncated: {found} bytes of voxels of {needed}")
    _require(path, found == needed, f"holds more than the {what} of its header: one of the two is damaged")
    return needed


def _inflated_bytes(path: Path, stream: IO[bytes], needed: int) -> int:
    """Bytes in the stream, and those behind it; more than are needed are not followed to their end."""
    voxels = Inflation(needed, ZLIB_OR_GZIP)
    try:
        while not (voxels.has_ended or voxels.is_too_long) and (piece := stream.read(_PIECE)):
            voxels.add(piece)
    except zlib.error as error:
        raise ImageFault(path, f"is damaged: its compressed voxels cannot be read ({error})") from error
    _require(path, voxels.has_ended or voxels.is_too_long, "is truncated: its compressed stream ends early")
    return voxels.num_bytes + voxels.unused + len(stream.read(1))  # what follows the stream is too much


def _line(path: Path, stream: IO[bytes]) -> str:
    line = stream.readline(1 << 16)
    _require(path, line.endswith(b"\n") and stream.tell() < MAX_HEADER_BYTES, "is truncated within its header")
    return line.decode("utf-8", "replace").rstrip("\r\n")


def _product(path: Path, sizes: str) -> int:
    _require(path, re.fullmatch(r"[1-9]\d{0,8}( +[1-9]\d{0,8}){1,4}", sizes), f"has a damaged header: sizes {sizes!r}")
    return math.prod(map(int, sizes.split()))


def _require_inside(path: Path, data_file: str | None, inside: str | None) -> None:
    _require(path, data_file == inside, f"has its voxels in another file, {data_file}: save it as one file")


def _require(path: Path, holds: object, fault: str) -> None:
    if not holds:
        raise ImageFault(path, fault)

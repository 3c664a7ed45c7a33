"""What SimpleITK hides of a NIfTI file: NaN and infinity in it become 0."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np

# NIfTI-1, the one that SimpleITK reads: bytes of the header, where the type's code and the voxels' begin stand.
HEADER_BYTES, CODE_AT, BEGIN_AT = 348, 70, 108
FLOATS = {16: "f4", 64: "f8"}  # other types hold nothing of the kind
CHUNK_BYTES = 1 << 24
GZIP_SIGNATURE = b"\x1f\x8b"


def has_values_that_are_not_finite(path: Path) -> bool:
    """Whether a voxel that is stored in a single NIfTI file, compressed or not, is NaN or infinite.

    False for all other files, and for damaged ones, which SimpleITK reports.
    """
    with path.open("rb") as raw:
        compressed = raw.read(2) == GZIP_SIGNATURE
        raw.seek(0)
        stream = gzip.GzipFile(fileobj=raw) if compressed else raw
        try:
            return _look(stream)
        except (EOFError, OSError, zlib.error):
            return False


def _look(stream: IO[bytes]) -> bool:
    header = stream.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        return False
    order = next((order for order in "<>" if struct.unpack_from(f"{order}i", header)[0] == HEADER_BYTES), None)
    if order is None:
        return False
    (code,), (begin,) = (
        struct.unpack_from(f"{order}h", header, CODE_AT),
        struct.unpack_from(f"{order}f", header, BEGIN_AT),
    )
    if code not in FLOATS or not HEADER_BYTES <= begin < 2**31:
        return False
    dtype = np.dtype(f"{order}{FLOATS[code]}")
    stream.seek(int(begin))
    while chunk := stream.read(CHUNK_BYTES):
        whole = len(chunk) // dtype.itemsize * dtype.itemsize
        if not np.isfinite(np.frombuffer(chunk[:whole], dtype)).all():
            return True
    return False

"""What SimpleITK hides of a NIfTI file: it reads 0 for NaN and infinity, and for voxels that are missing."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np

# NIfTI-1, the one that SimpleITK reads: bytes of the header, and where its fields stand.
HEADER_BYTES, SHAPE_AT, INTENT_AT, CODE_AT, BEGIN_AT, SCALE_AT, MAGIC_AT = 348, 40, 68, 70, 108, 112, 344
SINGLE_FILE = b"n+1"
# Bits of a voxel by its type, which SimpleITK goes by; bitpix says the same again.
BITS = {
    **dict.fromkeys((2, 256), 8),  # uint8, int8
    **dict.fromkeys((4, 512), 16),
    **dict.fromkeys((8, 768, 16), 32),  # float32 too
    **dict.fromkeys((1024, 1280, 64, 32), 64),  # float64, and two float32 of a complex number
    **{128: 24, 2304: 32, 1792: 128},  # RGB, RGBA, complex numbers of float64
}
COLOURS = (128, 2304)
COMPLEX = (32, 1792)
# Intents for which SimpleITK allocates as if a voxel of these types had one part, and then writes beyond its memory.
VECTORS = (1006, 1007)
LEAST_SCALE = 2.0**-52  # below, SimpleITK takes a slope for 1
FLOATS = {16: "f4", 64: "f8"}  # other types hold nothing that is not finite
CHUNK_BYTES = 1 << 24
GZIP_SIGNATURE = b"\x1f\x8b"
NOT_FINITE = "has NaN or infinite voxels"


def fault_of(path: Path) -> str | None:
    """Why a file, compressed or not, is no whole and finite NIfTI-1 in one file; None: it is. It is read to its end."""
    with path.open("rb") as raw:
        compressed = raw.read(2) == GZIP_SIGNATURE
        raw.seek(0)
        try:
            return _look(gzip.GzipFile(fileobj=raw) if compressed else raw)
        except EOFError:
            return "is truncated: its compressed stream ends early"
        except (OSError, zlib.error) as error:
            return f"is damaged: {error}"


def _look(stream: IO[bytes]) -> str | None:
    header = stream.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        return "cannot be read as NIfTI: it ends within the header"
    order = next((order for order in "<>" if struct.unpack_from(f"{order}i", header)[0] == HEADER_BYTES), None)
    if order is None or not header[MAGIC_AT:].startswith(SINGLE_FILE):
        found = "NIfTI-2" if header[4:7] == b"n+2" else "something else"
        return f"cannot be read as NIfTI: it is {found}, and NIfTI-1 in one file is needed"
    dimensions, *shape = struct.unpack_from(f"{order}8h", header, SHAPE_AT)
    code, bits = struct.unpack_from(f"{order}hh", header, CODE_AT)
    (begin,) = struct.unpack_from(f"{order}f", header, BEGIN_AT)
    if not (1 <= dimensions <= 7 and min(shape[:dimensions]) > 0):
        return f"has a damaged header: {dimensions} dimensions of {', '.join(map(str, shape))} voxels"
    if not HEADER_BYTES <= begin < 2**31:
        return (
            f"has voxels from byte {begin:g} on by its header (vox_offset), which ends at {HEADER_BYTES}: save it again"
        )
    if BITS.get(code) != bits:
        needed = f"{BITS[code]} bits, as of its type" if code in BITS else "a type that SimpleITK reads"
        return f"has a damaged header: voxels of type {code} and {bits} bits (datatype, bitpix); needed: {needed}"
    (intent,) = struct.unpack_from(f"{order}h", header, INTENT_AT)
    if code in COLOURS + COMPLEX and intent in VECTORS:
        return (
            f"has a damaged header: vectors (intent_code {intent}) of voxels of type {code}, which have several parts "
            "already; needed: intent_code 0"
        )
    if code in COLOURS and _is_scaled(*struct.unpack_from(f"{order}2f", header, SCALE_AT)):
        return (
            "holds colours with a scale (scl_slope, scl_inter), for which SimpleITK returns other values: save the "
            "scaled values, without a scale"
        )
    voxels = math.prod(shape[:dimensions])
    stream.seek(int(begin))
    missing, finite = voxels * bits // 8, True
    dtype = np.dtype(f"{order}{FLOATS.get(code, 'u1')}")
    while chunk := stream.read(CHUNK_BYTES):
        if code in FLOATS and missing > 0:
            whole = min(len(chunk), missing) // dtype.itemsize * dtype.itemsize
            finite = finite and bool(np.isfinite(np.frombuffer(chunk[:whole], dtype)).all())
        missing -= len(chunk)
    if missing > 0:
        return f"is truncated: {missing} bytes of its {voxels} voxels are missing"
    return None if finite else NOT_FINITE


def _is_scaled(slope: float, intercept: float) -> bool:
    """Whether the values of a file are others than its bytes."""
    slope = slope if math.isfinite(slope) and abs(slope) >= LEAST_SCALE else 1.0
    return slope != 1.0 or (math.isfinite(intercept) and intercept != 0.0)

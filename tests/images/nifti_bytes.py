"""NIfTI files with headers edited field by field."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import nibabel
import numpy as np

# Offsets in a NIfTI-1 header (https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h).
DIM, DATATYPE, BITPIX, PIXDIM, VOX_OFFSET, SCALING, UNITS, CODES, QUATERN, SFORM, MAGIC = (
    40,
    70,
    72,
    76,
    108,
    112,
    123,
    252,
    256,
    280,
    344,
)


def write_nifti(
    path: Path,
    values: np.ndarray,
    *,
    sform: np.ndarray | None = None,
    sform_code: int = 1,
    qform: np.ndarray | None = None,
    qform_code: int = 1,
    pixdim: tuple[float, float, float] | None = None,
) -> Path:
    """Write values (x, y, z) with these forms, and the spacing in pixdim whatever the forms say."""
    image = nibabel.Nifti1Image(values, None)
    header = image.header
    if qform is not None:
        header.set_qform(qform, qform_code, strip_shears=True)
    if sform is not None:
        header.set_sform(sform, sform_code)
    header["qform_code"] = 0 if qform is None else qform_code
    header["sform_code"] = 0 if sform is None else sform_code
    if pixdim is not None:
        header["pixdim"][1:4] = pixdim
    header["vox_offset"], header["scl_slope"], header["scl_inter"], header["magic"] = 352, 1, 0, b"n+1"
    content = header.binaryblock + b"\0" * 4 + values.tobytes(order="F")
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


def edit(path: Path, offset: int, form: str, *values: float | bytes) -> Path:
    """Overwrite fields of the header."""
    compressed = path.name.endswith(".gz")
    content = bytearray(gzip.decompress(path.read_bytes()) if compressed else path.read_bytes())
    struct.pack_into(form, content, offset, *values)
    path.write_bytes(gzip.compress(bytes(content)) if compressed else bytes(content))
    return path

"""NIfTI files with any header: libraries would make it consistent."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np


def write_nifti(path: Path, voxels: np.ndarray, code: int = 16, **fields) -> Path:
    """A file with these fields of its header; voxels: as they lie in it, ([t,] z, y, x[, colours])."""
    header = nib.Nifti1Header()
    header["magic"], header["vox_offset"], header["datatype"] = b"n+1", 352, code
    colours = {128: 3, 2304: 4}.get(code, 0)
    shape = voxels.shape[:-1] if colours else voxels.shape
    header["bitpix"] = 8 * colours or 32
    header["dim"] = [len(shape), *shape[::-1], *[1] * (7 - len(shape))]
    header["pixdim"] = [1, 1, 2, 3, 1, 1, 1, 1]
    for field, value in fields.items():
        header[field] = value
    path.write_bytes(header.binaryblock + bytes(4) + voxels.tobytes())
    return path

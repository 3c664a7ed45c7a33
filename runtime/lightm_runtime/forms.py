"""The two forms in which a NIfTI header says how an image lies: SimpleITK and nibabel prefer different ones."""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .nifti import GZIP_SIGNATURE, HEADER_BYTES

# From NIfTI's axes, to the right and to the front, to DICOM's, and back.
_LPS = np.diag([-1.0, -1.0, 1.0])
PIXDIM_AT, CODES_AT, QUATERNION_AT, ROWS_AT = 76, 252, 256, 280
CONTRADICTION = (
    "its header places it in two ways, qform and sform, that contradict each other: save it with one of them"
)
NEGATIVE = (
    "its header has pixels of negative size (pixdim), which some readers flip and others do not: save it with positive "
    "ones"
)
UNKNOWN = (
    "its header does not say how it lies (qform_code and sform_code are 0), for which readers assume different "
    "directions: save it with a qform or an sform"
)


def fault_of_forms(path: Path, image: sitk.Image, *, turned: bool) -> str | None:
    """Why nibabel, which prefers the sform, would see another orientation than SimpleITK did; None: it would not.

    Args:
        path: A NIfTI file that is whole.
        image: What SimpleITK read of it.
        turned: Whether the image is turned by its orientation; else only labels are placed by it.
    """
    used = {code_of(columns) for columns in _forms(path)}
    if len(used) > 1:
        return CONTRADICTION
    if not turned:
        return None
    if not used:
        return UNKNOWN
    dimensions = image.GetDimension()
    as_read = np.reshape(image.GetDirection(), (dimensions, dimensions))[:3, :3]
    return None if used == {code_of(_LPS @ as_read)} else NEGATIVE


def code_of(columns: np.ndarray) -> str:
    """Letters of the anatomical axes nearest to the columns of a NIfTI matrix, in the words of SimpleITK."""
    lengths = np.linalg.norm(columns, axis=0)
    if not (np.isfinite(lengths).all() and lengths.min() > 0):
        return "none"
    directions = _LPS @ (columns / lengths)
    return sitk.DICOMOrientImageFilter_GetOrientationFromDirectionCosines(directions.ravel().tolist())


def _forms(path: Path) -> list[np.ndarray]:
    """Columns of the forms that count, from the file itself: SimpleITK does not tell pixdim[0]."""
    with path.open("rb") as raw:
        compressed = raw.read(2) == GZIP_SIGNATURE
        raw.seek(0)
        header = (gzip.GzipFile(fileobj=raw) if compressed else raw).read(HEADER_BYTES)
    order = "<" if struct.unpack_from("<i", header)[0] == HEADER_BYTES else ">"
    qform, sform = struct.unpack_from(f"{order}2h", header, CODES_AT)
    (factor,) = struct.unpack_from(f"{order}f", header, PIXDIM_AT)
    forms = []
    if qform > 0:
        forms.append(_qform(*struct.unpack_from(f"{order}3f", header, QUATERNION_AT), factor))
    if sform > 0:
        forms.append(np.reshape(struct.unpack_from(f"{order}12f", header, ROWS_AT), (3, 4))[:, :3])
    return forms


def _qform(b: float, c: float, d: float, factor: float) -> np.ndarray:
    """The rotation of a unit quaternion, as in nifti1.h; pixdim[0] below 0 turns the last axis round."""
    a = math.sqrt(max(0.0, 1.0 - b * b - c * c - d * d))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    rotation[:, 2] *= -1.0 if factor < 0 else 1.0
    return rotation

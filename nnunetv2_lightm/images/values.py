"""Checks of a NIfTI file's stored values: SimpleITK reads NaN as 0 and fills in what is missing."""

from __future__ import annotations

import numpy as np

from .faults import ImageFault
from .nifti import Nifti, chunks

# A label has a few values; more than this are not collected.
_MAX_DISTINCT = 1000


def check_values(nifti: Nifti) -> None:
    """Read all voxels and check that each is a finite float32, in which nnU-Net computes.

    Raises:
        ImageFault: if the file is damaged, or has NaN, infinite or larger values.
    """
    bad = 0
    for stored in chunks(nifti):
        if stored.dtype.kind == "f" or nifti.scaling is not None:
            bad += int(np.count_nonzero(~np.isfinite(_scaled(nifti, stored))))
    if bad:
        raise ImageFault(nifti.path, f"has {bad} NaN or infinite value(s), or values beyond float32's range")


def check_label_values(nifti: Nifti) -> tuple[int, ...]:
    """Read all voxels and check that each is a whole number.

    Returns: The numbers that occur, ascending; of more than a thousand, only some.
    Raises:
        ImageFault: if the file is damaged, or has NaN, infinite or fractional values.
    """
    distinct: set[int] = set()
    for stored in chunks(nifti):
        values = np.unique(_scaled(nifti, stored) if nifti.scaling is not None else stored)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ImageFault(nifti.path, "has NaN or infinite values; a label has whole numbers")
        if (fault := fault_of_fractions(values)) is not None:
            raise ImageFault(nifti.path, fault)
        if len(distinct) < _MAX_DISTINCT:
            distinct.update(int(value) for value in values[:_MAX_DISTINCT])
    return tuple(sorted(distinct))


def fault_of_fractions(values: np.ndarray) -> str | None:
    """Why finite values are not those of a label, continuing a sentence that begins with its name; None: they are."""
    if values.dtype.kind != "f" or not (fractional := values[values != np.rint(values)]).size:
        return None
    return (
        f"has values that are not integers, such as {exactly(fractional[0])}: was it interpolated? "
        "Resample labels by nearest neighbour"
    )


def exactly(value: float | np.generic) -> str:
    """A value with all digits that distinguish it from its neighbours: 0.9999999 is not printed as 1."""
    text = np.format_float_positional(value, trim="-") if 1e-4 <= abs(value) < 1e16 or value == 0 else f"{value}"
    return text if isinstance(value, (float, np.floating)) else str(int(value))


def _scaled(nifti: Nifti, stored: np.ndarray) -> np.ndarray:
    """float32 for stored floats and scaled values, as far as it holds them; overflow gives infinity."""
    with np.errstate(over="ignore", invalid="ignore"):
        if nifti.scaling is None:
            return stored if stored.dtype.itemsize == 4 else stored.astype(np.float32)
        slope, intercept = nifti.scaling
        values = stored.astype(np.float64) * slope + intercept
        # A label's 1 that is stored as 2 * 0.5 must stay a whole number.
        return values.astype(np.float32)

"""NIfTI volumes: read completely or refused, checked, and stored in the dtypes nnU-Net's CT data sets have."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk

from ..images.check import DEFAULT_GEOMETRY
from ..images.faults import ImageFault
from ..images.geometry import Grid, largest_shift_mm, rounding_mm
from ..images.nifti import read_header
from ..images.nifti_geometry import NiftiGeometry, read_geometry
from ..images.values import check_values, exactly, fault_of_fractions
from ._errors import CaseRefused

_INT16 = np.iinfo(np.int16)
# The user's spacing and the header's agree if they differ by at most this share.
_SPACING_SHARE = 0.01


@dataclass
class Volume:
    """A volume of one channel.

    Attributes:
        image: The voxels, in the geometry that was chosen.
        repairs: What was repaired to read it.
        notes: What is odd.
    """

    image: sitk.Image
    repairs: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_volume(file: Path, spacing_mm: tuple[float, float, float] | None = None) -> Volume:
    """Read a 3D volume.

    Args:
        file: NIfTI.
        spacing_mm: (z, y, x), for a volume whose header has a default instead, or two contradictory spacings.
    Raises:
        CaseRefused: if the file is empty, truncated or corrupt, has NaN or infinite values or geometry, or is not a
            volume of one channel; if its header states two spacings, or another one than `spacing_mm`.
    """
    try:
        header = read_header(file)
        if header.is_nifti_2:
            raise ImageFault(file, "is NIfTI-2, which SimpleITK does not read: save it as NIfTI-1")
        if len(header.shape) != 3:
            raise ImageFault(file, f"is not a volume of one channel: size {header.shape}")
        check_values(header)
        geometry = read_geometry(header)
    except ImageFault as fault:
        raise CaseRefused(f"{file.name} {fault.reason}") from fault
    volume, is_placed = _read_voxels(file)
    grid = _decide(file.name, geometry, spacing_mm, volume)
    if volume.repairs or not is_placed:
        _set_geometry(file.name, volume, grid)
    if grid.is_default:
        volume.notes.append(
            f"{file.name} {DEFAULT_GEOMETRY}; nnU-Net will plan with it. If the true spacing is known (LiTS 28 to 47 "
            "are 3D-IRCADb 1 to 20), give it with --spacings FILE"
        )
    return volume


def write_volume(volume: sitk.Image, file: Path) -> None:
    """Write a volume, compressed, and read its bytes back: ITK does not notice a full disk.

    Raises:
        OSError: if the file cannot be written whole; nothing of it remains.
    """
    try:
        sitk.WriteImage(volume, str(file), useCompression=True)
        check_values(read_header(file))
    except (RuntimeError, ImageFault) as error:
        file.unlink(missing_ok=True)
        reason = str(error).strip().splitlines()[-1]
        free_mib = shutil.disk_usage(file.parent).free / 2**20
        raise OSError(f"cannot write {file} whole ({free_mib:.0f} MiB are free there): {reason}") from error


def check_ct(image: sitk.Image, name: str) -> tuple[sitk.Image, list[str], list[str]]:
    """Check a CT image's values; other dtypes than int16 and float32 become int16 if that loses nothing, else float32.

    Returns: The image, repairs and notes.
    Raises:
        CaseRefused: if float32 cannot hold its values.
    """
    values = sitk.GetArrayViewFromImage(image)
    lowest, highest = values.min(), values.max()
    notes = [f"{name} is constant ({exactly(lowest)})"] if lowest == highest else []
    if values.dtype in (np.int16, np.float32):
        return image, [], notes
    integral = np.issubdtype(values.dtype, np.integer) or np.array_equal(values, np.rint(values))
    if integral and _INT16.min <= lowest and highest <= _INT16.max:
        return sitk.Cast(image, sitk.sitkInt16), [f"{name}: {values.dtype} stored as int16"], notes
    if not max(abs(float(lowest)), abs(float(highest))) <= float(np.finfo(np.float32).max):
        raise CaseRefused(f"{name} has values from {lowest:g} to {highest:g}, which float32 cannot hold")
    return sitk.Cast(image, sitk.sitkFloat32), [f"{name}: {values.dtype} stored as float32"], notes


def check_label(label: sitk.Image, name: str, allowed: tuple[int, ...]) -> tuple[sitk.Image, list[str], set[int]]:
    """Check a label's values.

    Returns: The label as uint8, repairs, and the values that occur.
    Raises:
        CaseRefused: if values are fractional or not allowed.
    """
    values = sitk.GetArrayViewFromImage(label)
    if (fault := fault_of_fractions(values)) is not None:
        raise CaseRefused(f"{name} {fault}")
    present = {value for value in allowed if np.any(values == value)}
    if not (min(allowed) <= values.min() and values.max() <= max(allowed)):
        strange = [exactly(value) for value in np.unique(values) if value not in allowed]
        shown = ", ".join(strange[:10]) + (", ..." if len(strange) > 10 else "")
        raise CaseRefused(f"{name} has the values {shown}; allowed are {', '.join(map(str, allowed))}")
    repairs = [f"{name}: {values.dtype} stored as uint8"] if values.dtype.kind == "f" else []
    return sitk.Cast(label, sitk.sitkUInt8), repairs, present


def _read_voxels(file: Path) -> tuple[Volume, bool]:
    """The volume, and whether ITK has given it the geometry of the header."""
    try:
        return Volume(sitk.ReadImage(str(file))), True
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        if "orthonormal" not in reason:
            raise CaseRefused(f"{file.name} cannot be read: {reason}") from error
    # ITK rejects such a file only for its direction matrix.
    values = np.asanyarray(nibabel.load(file).dataobj)
    values = values.reshape(values.shape[:3]).T
    image = sitk.GetImageFromArray(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("=")))
    return Volume(image), False


def _decide(name: str, geometry: NiftiGeometry, spacing_mm: tuple[float, float, float] | None, volume: Volume) -> Grid:
    """The geometry to use, from what the header says and the user knows."""
    grid = geometry.grid
    if geometry.contradiction:
        volume.repairs.append(f"{name} {geometry.contradiction}; its {geometry.taken} was used")
    if spacing_mm is None:
        if geometry.is_ambiguous:
            raise CaseRefused(f"{name} {geometry.contradiction}. Which is right? Give it with --spacings FILE")
        return grid
    given = spacing_mm[::-1]
    if np.allclose(grid.spacing_mm, given, rtol=_SPACING_SHARE, atol=0):
        return grid
    if not (grid.is_default or geometry.is_ambiguous or np.array_equal(grid.spacing_mm, (1, 1, 1))):
        raise CaseRefused(
            f"{name} has the spacing {_mm(grid.spacing_mm)}, --spacings says {_mm(given)}: which is right?"
        )
    volume.repairs.append(f"{name}: spacing {_mm(grid.spacing_mm)} replaced by {_mm(given)}, of --spacings")
    matrix = grid.voxel_to_mm.copy()
    matrix[:3, :3] = grid.direction * given
    return Grid(grid.size, matrix)


def _set_geometry(name: str, volume: Volume, grid: Grid) -> None:
    """Give the image this geometry, with the nearest axes at right angles, which ITK needs.

    Raises:
        CaseRefused: if straightening them moves voxels by more than rounding.
    """
    left, _, right = np.linalg.svd(grid.direction)
    direction = left @ right
    straight = grid.voxel_to_mm.copy()
    straight[:3, :3] = direction * grid.spacing_mm
    shift_mm, limit_mm = largest_shift_mm(grid.voxel_to_mm, straight, grid.size), rounding_mm(grid.spacing_mm)
    if not shift_mm <= limit_mm:
        raise CaseRefused(
            f"{name}: its axes are not at right angles; straightening them would move voxels by up to "
            f"{shift_mm:.4g} mm, more than rounding ({limit_mm:.4g} mm)"
        )
    if not np.allclose(straight, grid.voxel_to_mm, rtol=1e-5):
        volume.repairs.append(f"{name}: axes straightened (voxels moved by at most {shift_mm:.4g} mm)")
    values = sitk.GetArrayViewFromImage(volume.image)
    volume.image = sitk.GetImageFromArray(values.reshape(grid.size[::-1]))
    volume.image.SetSpacing(grid.spacing_mm)
    volume.image.SetOrigin(grid.origin_mm)
    volume.image.SetDirection(direction.ravel().tolist())


def _mm(spacing_mm: tuple[float, ...]) -> str:
    return "x".join(f"{length:.4g}" for length in reversed(spacing_mm)) + " mm (z, y, x)"

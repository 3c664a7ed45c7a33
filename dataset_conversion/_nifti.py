"""NIfTI volumes: read completely or refused, checked, and stored in the dtypes nnU-Net's CT data sets have."""

from __future__ import annotations

import gzip
import math
import shutil
import zlib
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from ._errors import CaseRefused
from ._geometry import largest_shift_mm, rounding_mm

_INT16 = np.iinfo(np.int16)
_CHUNK_VOXELS = 1 << 20


def read_volume(file: Path) -> tuple[sitk.Image, list[str]]:
    """Read a 3D volume.

    Returns: The volume, and what had to be mended to read it.
    Raises:
        CaseRefused: if the file is empty, truncated, corrupt, has NaN or infinite values, or is no volume of one
            channel.
    """
    _check_bytes(file)
    repairs = []
    try:
        volume = sitk.ReadImage(str(file))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        if "orthonormal" not in reason:
            raise CaseRefused(f"{file.name} cannot be read: {reason}") from error
        volume, repair = _read_orthonormalised(file)
        repairs.append(repair)
    if volume.GetDimension() != 3 or volume.GetNumberOfComponentsPerPixel() != 1:
        raise CaseRefused(
            f"{file.name} is no volume of one channel: size {volume.GetSize()}, "
            f"{volume.GetNumberOfComponentsPerPixel()} channel(s)"
        )
    return volume, repairs


def write_volume(volume: sitk.Image, file: Path) -> None:
    """Write a volume, compressed, and read its bytes back: ITK does not notice a disk that is full.

    Raises:
        OSError: if the file cannot be written whole; nothing of it stays.
    """
    try:
        sitk.WriteImage(volume, str(file), useCompression=True)
        _check_bytes(file)
    except (RuntimeError, CaseRefused) as error:
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
    notes = [f"{name} is constant ({lowest:g})"] if lowest == highest else []
    if values.dtype in (np.int16, np.float32):
        return image, [], notes
    integral = np.issubdtype(values.dtype, np.integer) or np.array_equal(values, np.rint(values))
    if integral and _INT16.min <= lowest and highest <= _INT16.max:
        return sitk.Cast(image, sitk.sitkInt16), [f"{name}: {values.dtype} stored as int16"], notes
    if max(abs(float(lowest)), abs(float(highest))) > float(np.finfo(np.float32).max):
        raise CaseRefused(f"{name} has values from {lowest:g} to {highest:g}, which float32 cannot hold")
    return sitk.Cast(image, sitk.sitkFloat32), [f"{name}: {values.dtype} stored as float32"], notes


def check_label(label: sitk.Image, name: str, allowed: tuple[int, ...]) -> tuple[sitk.Image, list[str], set[int]]:
    """Check a label's values.

    Returns: The label as uint8, repairs, and the values that occur.
    Raises:
        CaseRefused: if values are fractional or not allowed.
    """
    values = sitk.GetArrayViewFromImage(label)
    is_float = np.issubdtype(values.dtype, np.floating)
    if is_float and not np.array_equal(values, np.rint(values)):
        example = values[values != np.rint(values)][0]
        raise CaseRefused(f"{name} has values that are no integers, such as {example:g}: was it interpolated?")
    present = {value for value in allowed if np.any(values == value)}
    if values.min() < min(allowed) or values.max() > max(allowed):
        strange = [f"{value:g}" for value in np.unique(values) if value not in allowed]
        shown = ", ".join(strange[:10]) + (", ..." if len(strange) > 10 else "")
        raise CaseRefused(f"{name} has the values {shown}; allowed are {', '.join(map(str, allowed))}")
    repairs = [f"{name}: {values.dtype} stored as uint8"] if is_float else []
    return sitk.Cast(label, sitk.sitkUInt8), repairs, present


def _check_bytes(file: Path) -> None:
    """Look for what SimpleITK passes over without a word: it fills what a truncated file lacks, and puts 0 for NaN."""
    try:
        if file.stat().st_size == 0:
            raise CaseRefused(f"{file.name} is empty")
        nifti = nibabel.load(file)
        dtype, needed = nifti.get_data_dtype(), math.prod(nifti.shape)
        if needed == 0:
            raise CaseRefused(f"{file.name} has no voxels: shape {nifti.shape}")
        found = not_finite = 0
        # Reading to the end also checks a gzip's checksum.
        with gzip.open(file, "rb") if file.suffix.lower() == ".gz" else file.open("rb") as stream:
            stream.read(nifti.dataobj.offset)
            while chunk := stream.read(_CHUNK_VOXELS * dtype.itemsize):
                whole = len(chunk) // dtype.itemsize
                if dtype.kind == "f":
                    values = np.frombuffer(chunk, dtype, count=max(0, min(whole, needed - found)))
                    not_finite += int(np.count_nonzero(~np.isfinite(values)))
                found += whole
    except EOFError as error:
        raise CaseRefused(f"{file.name} is truncated: its compressed stream ends early") from error
    except (OSError, ValueError, zlib.error, ImageFileError, HeaderDataError) as error:
        raise CaseRefused(f"{file.name} cannot be read: {error}") from error
    if found < needed:
        raise CaseRefused(f"{file.name} is truncated: {found} voxels of {needed}")
    if not_finite:
        raise CaseRefused(f"{file.name} has {not_finite} NaN or infinite value(s)")


def _read_orthonormalised(file: Path) -> tuple[sitk.Image, str]:
    """Read a volume whose direction matrix ITK rejects, and put the nearest orthonormal one in its place."""
    nifti = nibabel.load(file)
    dtype = nifti.get_data_dtype()
    if len(nifti.shape) != 3 or dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise CaseRefused(f"{file.name}: its axes are not at right angles, and it is no volume of one channel")
    given = np.diag([-1, -1, 1, 1]) @ nifti.affine  # NIfTI's world is RAS, ITK's is LPS.
    spacing_mm = np.linalg.norm(given[:3, :3], axis=0)
    if not np.isfinite(given).all() or spacing_mm.min() == 0:
        raise CaseRefused(f"{file.name}: its direction matrix is degenerate: {given[:3, :3].tolist()}")
    left, _, right = np.linalg.svd(given[:3, :3] / spacing_mm)
    direction = left @ right
    mended = given.copy()
    mended[:3, :3] = direction * spacing_mm
    shift_mm, limit_mm = largest_shift_mm(given, mended, nifti.shape), rounding_mm(spacing_mm)
    if shift_mm > limit_mm:
        raise CaseRefused(
            f"{file.name}: its axes are not at right angles; straightening them would move voxels by up to "
            f"{shift_mm:.4g} mm, more than rounding ({limit_mm:.4g} mm)"
        )
    values = np.asanyarray(nifti.dataobj).T
    volume = sitk.GetImageFromArray(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("=")))
    volume.SetSpacing(spacing_mm.tolist())
    volume.SetOrigin(given[:3, 3].tolist())
    volume.SetDirection(direction.ravel().tolist())
    return volume, f"{file.name}: axes straightened (voxels moved by at most {shift_mm:.4g} mm)"

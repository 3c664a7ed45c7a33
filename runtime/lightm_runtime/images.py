"""Images by SimpleITK, as the reader of the model's training gave them to nnU-Net (nnunetv2/imageio)."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .nifti import NOT_FINITE, fault_of

REORIENTED = ("SimpleITKIOWithReorient", "NibabelIOWithReorient")
ORIENTATION = "RAS"
FLAT, TIFF = "NaturalImage2DIO", "Tiff3DIO"
FLAT_SPACING_MM = (999.0, 1.0, 1.0)  # what nnU-Net calls the spacing of a natural image
THICK = 999.0  # the thickness of a 2D medical image, in pixels
# Longest first: .nii.gz is one ending.
ENDINGS = (
    *(".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".gipl", ".gipl.gz", ".hdr", ".img", ".img.gz", ".nia", ".vtk"),
    *(".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".dcm", ".mnc", ".nhdr"),
)
LOSSY = (".jpg", ".jpeg")
TOLERANCE = 1e-3  # of a voxel, for the geometry of channels of one case


class ImageError(Exception):
    """An image cannot be used; the message names the file, what is wrong, and what is needed."""


@dataclass(frozen=True)
class Geometry:
    """Where an image lies, in SimpleITK's order, (x, y[, z])."""

    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    @property
    def dimensions(self) -> int:
        return len(self.spacing)


@dataclass(frozen=True)
class Case:
    """One image with all its channels.

    Attributes:
        files: It was read from.
        voxels: (channels, z, y, x), float32, z = 1 where it is 2D.
        spacing_mm: (z, y, x), as nnU-Net counts it.
        geometry: The geometry of ``voxels``.
        orientation: The file's orientation, if the image was turned; None: it was not.
    """

    files: tuple[Path, ...]
    voxels: np.ndarray
    spacing_mm: tuple[float, float, float]
    geometry: Geometry
    orientation: str | None

    @property
    def voxel_ml(self) -> float | None:
        """Volume of a voxel; None for an image that has no thickness."""
        return float(np.prod(self.geometry.spacing)) / 1000.0 if self.geometry.dimensions == 3 else None


def read_case(files: Sequence[Path], channels: Sequence[str], reader: str) -> Case:
    """Read the channels of one image: a file each, or one file that has them all.

    Raises:
        ImageError: if a file cannot be read, or they do not fit each other or the model.
    """
    images = [_read(path) for path in files]
    orientation = None
    if reader in REORIENTED and images[0].GetDimension() == 3:
        orientation = sitk.DICOMOrientImageFilter_GetOrientationFromDirectionCosines(images[0].GetDirection())
        images = [sitk.DICOMOrient(image, ORIENTATION) for image in images]
    _check_geometry(files, images)
    voxels = np.concatenate([_channels_of(path, image) for path, image in zip(files, images)])
    if len(voxels) != len(channels):
        names = ", ".join(channels)
        raise ImageError(
            f"{_names(files)}: {len(voxels)} channel(s); the model takes {len(channels)}: {names}, in this order, one "
            "file each or one file with all"
        )
    geometry = _geometry_of(images[0])
    spacing_mm = _spacing_mm(files[0], geometry, reader)
    return Case(tuple(files), voxels, spacing_mm, geometry, orientation)


def write_labels(labels: np.ndarray, case: Case, path: Path) -> None:
    """Write labels (z, y, x) with the image's geometry; the file appears whole or not at all.

    Raises:
        ImageError: if SimpleITK cannot write this format, or another program has the file open on Windows.
    """
    if labels.max() < 255:  # as nnU-Net writes them
        labels = labels.astype(np.uint8)
    image = sitk.GetImageFromArray(labels[0] if case.geometry.dimensions == 2 else labels)
    image.SetSpacing(case.geometry.spacing)
    image.SetOrigin(case.geometry.origin)
    image.SetDirection(case.geometry.direction)
    if case.orientation is not None:
        image = sitk.DICOMOrient(image, case.orientation)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{stem_of(path)}.", suffix=ending_of(path), dir=path.parent)
    os.close(handle)
    try:
        sitk.WriteImage(image, name, True)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except RuntimeError as error:
        raise ImageError(f"{path}: cannot be written: {_last_line(error)}") from error
    except PermissionError as error:  # the folder can be written to: another file is there already
        raise ImageError(
            f"{path}: cannot be replaced: {error.strerror}. Close it where it is open, or name another output"
        ) from error
    finally:
        Path(name).unlink(missing_ok=True)


def ending_of(path: Path) -> str:
    """``.nii.gz`` of ``ct.nii.gz``; "" where SimpleITK knows no such image."""
    name = path.name.lower()
    return next((path.name[-len(ending) :] for ending in ENDINGS if name.endswith(ending)), "")


def stem_of(path: Path) -> str:
    """The name without its ending."""
    ending = ending_of(path)
    return path.name[: -len(ending)] if ending else path.name


def _read(path: Path) -> sitk.Image:
    if not path.is_file():
        raise ImageError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}")
    if (fault := fault_of(path)) is not None:
        raise ImageError(f"{path}: {fault}")
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise ImageError(f"{path}: cannot be read as an image: {_last_line(error)}") from error
    return image


def _last_line(error: RuntimeError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _channels_of(path: Path, image: sitk.Image) -> np.ndarray:
    """(channels, z, y, x), float32."""
    if np.iscomplexobj(sitk.GetArrayViewFromImage(image)):
        raise ImageError(f"{path}: has complex numbers; a scalar image is needed")
    array = sitk.GetArrayFromImage(image).astype(np.float32)
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, -1, 0)
    elif image.GetDimension() < 4:
        array = array[None]
    if image.GetDimension() == 2:
        array = array[:, None]
    if array.ndim != 4 or 0 in array.shape:
        raise ImageError(f"{path}: has the size {image.GetSize()}; an image of 2 or 3 dimensions is needed")
    if not np.isfinite(array).all():
        raise ImageError(f"{path}: {NOT_FINITE}")
    return array


def _geometry_of(image: sitk.Image) -> Geometry:
    """Of the spatial axes: a file with all channels along a fourth axis has one more."""
    dimensions = min(image.GetDimension(), 3)
    direction = np.reshape(image.GetDirection(), (image.GetDimension(),) * 2)[:dimensions, :dimensions]
    return Geometry(
        image.GetSpacing()[:dimensions], image.GetOrigin()[:dimensions], tuple(map(float, direction.ravel()))
    )


def _check_geometry(files: Sequence[Path], images: Sequence[sitk.Image]) -> None:
    """Channels lie on one grid, within nnU-Net's tolerance for origin and direction, exactly for size and spacing."""
    first = images[0]
    for path, image in zip(files[1:], images[1:]):
        for what in ("Size", "Spacing", "Origin", "Direction"):
            a, b = getattr(first, f"Get{what}")(), getattr(image, f"Get{what}")()
            if len(a) != len(b) or not np.allclose(a, b, rtol=1e-5, atol=TOLERANCE * min(first.GetSpacing())):
                raise ImageError(
                    f"{files[0]} and {path}: differ in {what.lower()}, {a} and {b}; channels of one image agree"
                )


def _spacing_mm(path: Path, geometry: Geometry, reader: str) -> tuple[float, float, float]:
    spacing = tuple(float(abs(value)) for value in geometry.spacing[::-1])
    if reader == FLAT:
        if geometry.dimensions != 2:
            raise ImageError(f"{path}: has 3 dimensions; the model was trained on 2D images")
        return FLAT_SPACING_MM
    if reader == TIFF and ending_of(path).lower() in (".tif", ".tiff"):
        spacing = _tiff_spacing_mm(path)
    if len(spacing) == 2:
        spacing = (max(spacing) * THICK, *spacing)
    if not all(np.isfinite(spacing)) or min(spacing) <= 0:
        raise ImageError(f"{path}: its spacing is {spacing} mm; three positive numbers are needed")
    return spacing


def _tiff_spacing_mm(path: Path) -> tuple[float, ...]:
    """nnunetv2/imageio/tif_reader_writer.py: CASE.json next to CASE_0000.tif; 1 mm if there is none."""
    file = path.with_name(stem_of(path)[:-5] + ".json")
    if not file.is_file():
        return (1.0, 1.0, 1.0)
    try:
        spacing = tuple(map(float, json.loads(file.read_text(encoding="utf-8"))["spacing"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ImageError(f"{file}: has no `spacing` of three numbers ({error})") from error
    if len(spacing) != 3:
        raise ImageError(f"{file}: `spacing` has {len(spacing)} numbers; three are needed")
    return spacing


def _names(files: Sequence[Path]) -> str:
    return ", ".join(map(str, files))

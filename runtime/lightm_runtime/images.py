"""Images by SimpleITK, as the reader of the model's training gave them to nnU-Net (nnunetv2/imageio)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .faults import ImageError
from .formats import TIFF as TIFF_ENDINGS
from .formats import ending_of, read_image, stem_of
from .forms import fault_of_forms
from .nifti import NOT_FINITE

REORIENTED = ("SimpleITKIOWithReorient", "NibabelIOWithReorient")
ORIENTATION = "RAS"
NIBABEL = ("NibabelIO", "NibabelIOWithReorient")
NIFTI = (".nii.gz", ".nii")
FLAT, TIFF = "NaturalImage2DIO", "Tiff3DIO"
UNITS_MM = {1: 1000.0, 3: 0.001}  # NIfTI's codes of metres and micrometres
FLAT_SPACING_MM = (999.0, 1.0, 1.0)  # what nnU-Net calls the spacing of a natural image
THICK = 999.0  # the thickness of a 2D medical image, in pixels
TOLERANCE = 1e-3  # of a voxel, for the geometry of channels of one case
# nnU-Net's names: CASE_0000.nii.gz, CASE_0001.nii.gz for the channels of one case.
CHANNEL_SUFFIX = re.compile(r"_(\d{4})$")


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
        reader: nnU-Net's, of the model's training.
        note: What was assumed of the image, for people; None: nothing.
    """

    files: tuple[Path, ...]
    voxels: np.ndarray
    spacing_mm: tuple[float, float, float]
    geometry: Geometry
    orientation: str | None
    reader: str
    note: str | None = None

    @property
    def voxel_ml(self) -> float | None:
        """Volume of a voxel; None for an image that has no thickness."""
        return float(np.prod(self.geometry.spacing)) / 1000.0 if self.geometry.dimensions == 3 else None


def read_case(files: Sequence[Path], channels: Sequence[str], reader: str) -> Case:
    """Read the channels of one image: a file each, or one file that has them all.

    Raises:
        ImageError: if a file cannot be read, or they do not fit each other or the model.
    """
    parts, unit_mm, note = _read_parts(files, reader)
    orientation = None
    first = parts[0][1]
    if reader in REORIENTED and first.GetDimension() == 3:
        orientation = sitk.DICOMOrientImageFilter_GetOrientationFromDirectionCosines(first.GetDirection())
        parts = [(path, sitk.DICOMOrient(part, ORIENTATION)) for path, part in parts]
    _check_geometry(parts)
    voxels = np.concatenate([_channels_of(path, part) for path, part in parts])
    if len(voxels) != len(channels):
        names = ", ".join(channels)
        raise ImageError(
            f"{_names(files)}: {len(voxels)} channel(s); the model takes {len(channels)}: {names}, in this order, one "
            "file each or one file with all"
        )
    image = parts[0][1]
    geometry = Geometry(image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    spacing_mm = _spacing_mm(files[0], geometry, reader, unit_mm if reader in NIBABEL else 1.0)
    return Case(tuple(files), voxels, spacing_mm, geometry, orientation, reader=reader, note=note)


def _read_parts(files: Sequence[Path], reader: str) -> tuple[list[tuple[Path, sitk.Image]], float, str | None]:
    """The images of one case by their files, the unit of the first one's header in mm, and what was assumed of them."""
    parts: list[tuple[Path, sitk.Image]] = []
    unit_mm, spacing, note = 1.0, None, None
    for path in files:
        image = read_image(path)
        if reader in NIBABEL:
            _check_forms(path, image, turned=reader in REORIENTED)
        if not parts:
            unit_mm = _unit_mm(image)
        # TIFF does not hold the spacing of a volume, whichever reader the model was trained with.
        if ending_of(path).lower() in TIFF_ENDINGS and image.GetDimension() == 3:
            if spacing is None:
                spacing, note = _tiff_spacing_mm(path)
            image.SetSpacing(spacing[::-1])
        parts += [(path, part) for part in _parts(path, image)]
    return parts, unit_mm, note


def _check_forms(path: Path, image: sitk.Image, *, turned: bool) -> None:
    """nnU-Net's nibabel readers saw the training images as nibabel takes a header, not as SimpleITK does."""
    is_nifti = ending_of(path).lower() in NIFTI
    if is_nifti and image.GetDimension() > 2 and (fault := fault_of_forms(path, image, turned=turned)) is not None:
        raise ImageError(f"{path}: {fault}")


def _parts(path: Path, image: sitk.Image) -> list[sitk.Image]:
    """An image of two or three dimensions, or those that lie behind one another along a fourth axis: the channels.

    They are taken apart first, as SimpleITK turns images of three dimensions alone.
    """
    if image.GetDimension() > 4 or 0 in image.GetSize():
        raise ImageError(f"{path}: has the size {image.GetSize()}; an image of 2 or 3 dimensions is needed")
    return [image] if image.GetDimension() < 4 else [image[:, :, :, i] for i in range(image.GetSize()[3])]


def _unit_mm(image: sitk.Image) -> float:
    """The unit of a NIfTI header's numbers, which nnU-Net's nibabel readers take for mm and SimpleITK makes mm of."""
    key = "xyzt_units"
    return UNITS_MM.get(int(image.GetMetaData(key)) & 7, 1.0) if image.HasMetaDataKey(key) else 1.0


def _channels_of(path: Path, image: sitk.Image) -> np.ndarray:
    """(channels, z, y, x), float32."""
    if np.iscomplexobj(sitk.GetArrayViewFromImage(image)):
        raise ImageError(f"{path}: has complex numbers; a scalar image is needed")
    array = sitk.GetArrayFromImage(image).astype(np.float32)
    array = np.moveaxis(array, -1, 0) if image.GetNumberOfComponentsPerPixel() > 1 else array[None]
    if image.GetDimension() == 2:
        array = array[:, None]
    if not np.isfinite(array).all():
        raise ImageError(f"{path}: {NOT_FINITE}")
    return array


def _check_geometry(parts: Sequence[tuple[Path, sitk.Image]]) -> None:
    """Channels lie on one grid: equal sizes, the rest to a thousandth of a voxel."""
    (first_path, first), *others = parts
    voxel = TOLERANCE * min(first.GetSpacing())
    for path, image in others:
        for what, tolerance in (("Size", 0.0), ("Spacing", voxel), ("Origin", voxel), ("Direction", TOLERANCE)):
            a, b = getattr(first, f"Get{what}")(), getattr(image, f"Get{what}")()
            if len(a) != len(b) or not np.allclose(a, b, rtol=1e-5 if tolerance else 0.0, atol=tolerance):
                raise ImageError(
                    f"{first_path} and {path}: differ in {what.lower()}, {a} and {b}; channels of one image agree"
                )


def _spacing_mm(path: Path, geometry: Geometry, reader: str, unit_mm: float) -> tuple[float, float, float]:
    spacing = tuple(float(abs(value)) / unit_mm for value in geometry.spacing[::-1])
    if reader == FLAT:
        if geometry.dimensions != 2:
            raise ImageError(f"{path}: has 3 dimensions; the model was trained on 2D images")
        return FLAT_SPACING_MM
    if len(spacing) == 2:
        spacing = (max(spacing) * THICK, *spacing)
    if not all(np.isfinite(spacing)) or min(spacing) <= 0:
        raise ImageError(f"{path}: its spacing is {spacing} mm; three positive numbers are needed")
    return spacing


def spacing_file_of(path: Path) -> Path:
    """Where the spacing of a TIFF volume stands, as nnunetv2/imageio/tif_reader_writer.py has it.

    CASE.json next to CASE_0000.tif. CASE_0001.json is looked for too: a number may belong to the name of the case.
    """
    shorter, whole = (path.with_name(f"{stem}.json") for stem in (CHANNEL_SUFFIX.sub("", stem_of(path)), stem_of(path)))
    return whole if whole.is_file() and not shorter.is_file() else shorter


def _tiff_spacing_mm(path: Path) -> tuple[tuple[float, ...], str | None]:
    """(z, y, x), and what to say of it: 1 mm is assumed, as nnU-Net does, where no file tells."""
    file = spacing_file_of(path)
    if not file.is_file():
        note = f'{path}: its voxels are taken for 1 mm; write {file} with {{"spacing": [z, y, x]}}, in mm'
        return (1.0, 1.0, 1.0), note
    try:
        spacing = tuple(map(float, json.loads(file.read_text(encoding="utf-8"))["spacing"]))
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ImageError(f"{file}: has no `spacing` of three numbers ({error})") from error
    if len(spacing) != 3 or not all(np.isfinite(spacing)) or min(spacing) <= 0:
        raise ImageError(f"{file}: its `spacing` is {list(spacing)}; three positive numbers are needed, for z, y, x")
    return spacing, None


def _names(files: Sequence[Path]) -> str:
    return ", ".join(map(str, files))

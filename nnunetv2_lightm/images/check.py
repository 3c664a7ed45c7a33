"""The check of one file, by its ending: every command runs it before it reads an image or a label."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import Image

from . import nifti, png, tiff
from .bounds import memory_for, require_plausible_size
from .faults import ImageFault
from .geometry import Grid, grid_of
from .itk_bytes import require_whole
from .names import refusal_of_name
from .nifti_geometry import read_geometry, refusal_by_itk
from .values import check_label_values, check_values, fault_of_fractions

# Formats that only SimpleITK reads; unlike with NIfTI, it keeps their NaN.
ITK_ENDINGS = (".nrrd", ".mha", ".gipl")
DEFAULT_GEOMETRY = (
    "may have lost its geometry: voxels of 1 mm along the axes, the first one at 0 mm, as software writes when it was "
    "given no spacing"
)
_BMP_RUNS = (1, 2)  # compressions by runs of equal pixels; the others are none
_WITH_NIBABEL = 'or set "overwrite_image_reader_writer" to NibabelIO in dataset.json and plan again'
_CHANNELS = {png.GRAY: 1, png.RGB: 3, png.PALETTE: 3, png.RGB_ALPHA: 4}  # as scikit-image passes them to nnU-Net


@dataclass(frozen=True)
class ImageFacts:
    """What is known about a file that was not refused.

    Attributes:
        path: The file.
        shape: Voxels, ([z,] y, x); empty for formats that are not looked into.
        channels: Number of channels that nnU-Net reads from this file; None for formats that are not looked into.
        grid: Where the voxels lie; None for files that do not say, such as PNG.
        notes: What is odd; each continues a sentence that begins with the file's name.
        values: Whole numbers that occur in a label, ascending.
        refused_by_itk: What of it nnU-Net's readers that use SimpleITK fail on; empty: nothing.
    """

    path: Path
    shape: tuple[int, ...] = ()
    channels: int | None = None
    grid: Grid | None = None
    notes: list[str] = field(default_factory=list)
    values: tuple[int, ...] = ()
    refused_by_itk: str = ""


def check_image(path: Path, *, thorough: bool = True, is_one_channel: bool = False) -> ImageFacts:
    """Check an image: a name that opens, a whole file, finite values and geometry.

    Args:
        path: The file. In formats that nnU-Net does not read, only its name is checked.
        thorough: False: files that hold integers, in all formats but PNG, BMP and TIFF, are only checked for their
            length, without decompression.
        is_one_channel: As for :func:`.tiff.read_tiff`.
    Raises:
        ImageFault: if it must not be used.
    """
    _check_name(path)
    ending = _ending(path)
    if ending in nifti.ENDINGS:
        file = nifti.read_header(path)
        facts = _nifti_facts(file)
        if thorough or not _is_sound_unread(file):
            check_values(file)
        return facts
    if ending == ".png":
        return _png_facts(path)
    if ending in ITK_ENDINGS:
        facts, values = _itk_facts(path, thorough)
        if values is not None:
            _require_finite(path, values)
        return facts
    if ending == ".bmp":
        return _bmp_facts(path)[0]
    if ending in tiff.ENDINGS:
        facts, values = _tiff_facts(path, is_one_channel=is_one_channel)
        _require_finite(path, values)
        return facts
    return ImageFacts(path)


def check_label(path: Path, *, thorough: bool = True) -> ImageFacts:
    """Check a label: the file like an image's, and that it holds only whole numbers.

    Args:
        path: The file.
        thorough: As in :func:`check_image`; of a file that was not read the ``values`` are empty.
    Raises:
        ImageFault: if it must not be used.
    """
    _check_name(path)
    ending = _ending(path)
    if ending in nifti.ENDINGS:
        file = nifti.read_header(path)
        facts = _one_channel(_nifti_facts(file))
        if not thorough and _is_sound_unread(file):
            return facts
        return replace(facts, values=check_label_values(file))
    if ending == ".png":
        facts = _one_channel(_png_facts(path))
        with Image.open(path, formats=("PNG",)) as image:
            return replace(facts, values=_distinct(path, np.asarray(image)))
    if ending in ITK_ENDINGS:
        facts, values = _itk_facts(path, thorough)
        facts = _one_channel(facts)
        return facts if values is None else replace(facts, values=_distinct(path, values))
    if ending == ".bmp":
        facts, values = _bmp_facts(path)
        return replace(_one_channel(facts), values=_distinct(path, values))
    if ending in tiff.ENDINGS:
        facts, values = _tiff_facts(path, is_one_channel=True)
        return replace(_one_channel(facts), values=_distinct(path, values))
    return ImageFacts(path)


def _is_sound_unread(file: nifti.Nifti) -> bool:
    """Whether there is nothing to look for in the voxels: integers, all of which are there."""
    return file.dtype.kind != "f" and file.scaling is None and nifti.looks_whole(file)


def _one_channel(facts: ImageFacts) -> ImageFacts:
    if facts.channels != 1:
        raise ImageFault(facts.path, f"has {facts.channels} channels (colours?); a segmentation has one")
    return facts


def _ending(path: Path) -> str:
    name = path.name.lower()
    return next((ending for ending in (".nii.gz", ".nii") if name.endswith(ending)), path.suffix.lower())


def _check_name(path: Path) -> None:
    if (refusal := refusal_of_name(path)) is not None:
        raise ImageFault(path, f"cannot be read: {refusal}")


def _require_one_number(path: Path, count: int) -> None:
    """Refuse voxels of several numbers: nnU-Net's readers would mistake those for an axis of space or of channels."""
    if count != 1:
        raise ImageFault(
            path,
            f"has {count} numbers per voxel (colours, vectors?), which nnU-Net takes for an axis. Save each as a "
            "channel of its own: CASE_0000, CASE_0001, ...",
        )


def _nifti_facts(file: nifti.Nifti) -> ImageFacts:
    _require_one_number(file.path, math.prod(file.shape[4:]))
    geometry = read_geometry(file)
    notes = []
    if geometry.contradiction:
        notes.append(f"{geometry.contradiction}; nnU-Net's readers take one or the other. Make them agree")
    if geometry.grid.is_default:
        notes.append(DEFAULT_GEOMETRY)
    refused_by_itk = ""
    if file.is_nifti_2:
        refused_by_itk = "its format, NIfTI-2"
        notes.append(f"is NIfTI-2, which SimpleITK does not read. Save it as NIfTI-1, {_WITH_NIBABEL}")
    elif (refusal := refusal_by_itk(file)) is not None:
        refused_by_itk = "its tilted axes"
        notes.append(
            "has axes that are not at right angles, as a tilted gantry leaves them. SimpleITK refuses it: "
            f"{refusal}. Resample it, {_WITH_NIBABEL}"
        )
    shape, channels = file.shape[:3], math.prod(file.shape[3:])
    return ImageFacts(file.path, tuple(reversed(shape)), channels, geometry.grid, notes, refused_by_itk=refused_by_itk)


def _png_facts(path: Path) -> ImageFacts:
    file = png.check_png(path)
    if file.kind == png.GRAY_ALPHA:
        raise ImageFault(path, "is gray with transparency, which nnU-Net cannot read; save it as gray")
    height, width = file.shape
    try:
        with (
            memory_for(path, 4 * height * width, what=f"{width}x{height} pixels"),
            Image.open(path, formats=("PNG",)) as image,
        ):
            image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageFault(path, f"cannot be read as PNG: {error}") from error
    notes = []
    if file.orientation != 1:
        notes.append(
            f"asks to be rotated (EXIF orientation {file.orientation}), which nnU-Net ignores: viewers do not show "
            "what the network sees. Save it upright, without that tag"
        )
    return ImageFacts(path, file.shape, _CHANNELS[file.kind], notes=notes)


def _itk_facts(path: Path, thorough: bool) -> tuple[ImageFacts, np.ndarray | None]:
    """Facts and values; without the values if they are integers, and not to be looked at."""
    num_bytes = require_whole(path, thorough=False)
    image = sitk.ImageFileReader()
    image.SetFileName(str(path))
    values = None
    try:
        image.ReadImageInformation()
        kind = image.GetPixelID()
        complex_numbers = kind in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64)
        _require_one_number(path, 2 if complex_numbers else image.GetNumberOfComponents())
        if thorough or kind in (sitk.sitkFloat32, sitk.sitkFloat64):
            require_whole(path)
            with memory_for(path, 2 * num_bytes, what=f"{num_bytes} bytes of voxels"):
                values = sitk.GetArrayFromImage(image.Execute())
    except RuntimeError as error:
        raise ImageFault(path, f"cannot be read: {str(error).strip().splitlines()[-1]}") from error
    grid = grid_of(image)
    if not np.isfinite(grid.voxel_to_mm).all():
        raise ImageFault(path, "has a geometry that is not finite. Export it again, or set its header")
    shape = tuple(reversed(grid.size[:3]))
    if len(grid.size) == 4:
        return ImageFacts(path, shape, channels=grid.size[3]), values
    return ImageFacts(path, shape, 1, grid, [DEFAULT_GEOMETRY] if grid.is_default else []), values


def _bmp_facts(path: Path) -> tuple[ImageFacts, np.ndarray]:
    try:
        with Image.open(path, formats=("BMP",)) as image:
            width, height = image.size
            what, runs = f"{width}x{height} pixels", image.info.get("compression") in _BMP_RUNS
            require_plausible_size(path, (width + 7) // 8 * height, compressed=runs, what=what)
            with memory_for(path, 8 * width * height, what=what):
                values = np.asarray(image.convert("RGB") if image.mode == "P" else image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageFault(path, f"cannot be read as BMP: {error}") from error
    return ImageFacts(path, values.shape[:2], 1 if values.ndim == 2 else values.shape[2]), values


def _tiff_facts(path: Path, *, is_one_channel: bool) -> tuple[ImageFacts, np.ndarray]:
    values, channels, images = tiff.read_tiff(path, is_one_channel=is_one_channel)
    _require_one_number(path, 2 if np.iscomplexobj(values) else 1)
    notes = [f"holds {images} images of different sizes: nnU-Net takes the first"] if images > 1 else []
    return ImageFacts(path, values.shape if channels == 1 else values.shape[:-1], channels, notes=notes), values


def _require_finite(path: Path, values: np.ndarray) -> None:
    if values.dtype.kind == "f" and (bad := int(np.count_nonzero(~np.isfinite(values)))):
        raise ImageFault(path, f"has {bad} NaN or infinite value(s)")


def _distinct(path: Path, values: np.ndarray) -> tuple[int, ...]:
    _require_finite(path, values)
    distinct = np.unique(values)
    if (fault := fault_of_fractions(distinct)) is not None:
        raise ImageFault(path, fault)
    return tuple(int(value) for value in distinct)

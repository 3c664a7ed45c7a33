"""Formats of image files: which are read and written, and why others are not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import SimpleITK as sitk

from .faults import ImageError
from .flat import KINDS, read_flat
from .nifti import fault_of
from .tiff import is_one_plane, read_tiff
from .wholeness import gipl_fault, meta_fault, meta_header_fault, nrrd_fault

# What SimpleITK reads only in part it fills up with something: a format is here with the check that a file is whole,
# and is read by this reader of SimpleITK alone, whatever the file holds. PNG is checked by SimpleITK itself.
CHECKED: dict[str, tuple[str, Callable[[Path], str | None]]] = {
    **dict.fromkeys((".nii.gz", ".nii"), ("NiftiImageIO", fault_of)),
    ".nrrd": ("NrrdImageIO", nrrd_fault),
    ".mha": ("MetaImageIO", meta_fault),
    **dict.fromkeys((".gipl", ".gipl.gz"), ("GiplImageIO", gipl_fault)),
}
TIFF = (".tif", ".tiff")
# SimpleITK changes values of these, or loses some; nnU-Net reads them with other libraries too.
OTHERWISE = {**dict.fromkeys(KINDS, read_flat), **dict.fromkeys(TIFF, read_tiff)}
READ = (*CHECKED, *OTHERWISE)
# One file, and the same labels and place when it is read again: each in its own way, see `refusal_of_output`.
WRITTEN = (".nii.gz", ".nii", ".nrrd", ".mha", ".gipl", ".gipl.gz", ".png", ".bmp", ".tif", ".tiff")
GIPL = (".gipl", ".gipl.gz")
AS_NIFTI = "save it as NIfTI in one file (.nii.gz)"
PAIR = f"has a header and voxels in two files, of which one is easily lost: {AS_NIFTI}"
UNCHECKED = f"is of a format of which nothing tells whether a file is whole: {AS_NIFTI}"
SHEARED = "its header (sform) places it with axes that are not at right angles: resample it onto such first"
DICOM = "is DICOM, one slice of an image: convert the series to NIfTI first, for example with dcm2niix"
REFUSED = {
    **dict.fromkeys((".dcm", ".ima"), DICOM),
    **dict.fromkeys((".hdr", ".img", ".img.gz", ".mhd", ".nhdr"), PAIR),
    **dict.fromkeys((".vtk", ".nia", ".mnc"), UNCHECKED),
}
# Longest first: .nii.gz is one ending.
ENDINGS = sorted((*READ, *REFUSED), key=len, reverse=True)


def ending_of(path: Path) -> str:
    """``.nii.gz`` of ``ct.nii.gz``, as it is spelled; "" where no image ends so."""
    name = path.name.lower()
    return next((path.name[-len(ending) :] for ending in ENDINGS if name.endswith(ending)), "")


def stem_of(path: Path) -> str:
    """The name without its ending."""
    ending = ending_of(path)
    return path.name[: -len(ending)] if ending else path.name


def is_dicom(path: Path) -> bool:
    """By its bytes: scanners name the files without an ending."""
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _refusal_of_name(path: Path) -> str | None:
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:  # as old archives unpack names; SimpleITK would abort the process
        return "its name is not UTF-8, and SimpleITK cannot open it: rename it"
    return None


def refusal_of(path: Path) -> str | None:
    """Why a file of this name or format is not read; None: it is."""
    if (refusal := _refusal_of_name(path)) is not None:
        return refusal
    ending = ending_of(path).lower()
    if ending in READ:
        return None
    if ending in REFUSED:
        return REFUSED[ending]
    return DICOM if is_dicom(path) else f"is of no format that is read: {', '.join(READ)}"


def read_image(path: Path) -> sitk.Image:
    """Read a file that is there and whole.

    Raises:
        ImageError: if it is not, or of another format.
        OSError: if it cannot be opened.
    """
    if not path.is_file():
        raise ImageError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}")
    if (refusal := refusal_of(path)) is not None:
        raise ImageError(f"{path}: {refusal}")
    ending = ending_of(path).lower()
    try:
        if ending in OTHERWISE:
            return OTHERWISE[ending](path)
        reader, check = CHECKED[ending]
        if (fault := check(path)) is not None:
            raise ImageError(f"{path}: {fault}")
        return sitk.ReadImage(str(path), sitk.sitkUnknown, reader)
    except RuntimeError as error:
        if "orthonormal" in str(error):  # of a NIfTI file that is whole; nnU-Net's nibabel readers take it
            raise ImageError(f"{path}: {SHEARED}") from error
        raise ImageError(f"{path}: cannot be read, is damaged or truncated: {last_line(error)}") from error


def is_flat(path: Path) -> bool | None:
    """Whether an image has two dimensions, by its header; None where that cannot be read, or there is no file."""
    ending = ending_of(path).lower()
    if _refusal_of_name(path) is not None:
        return None
    try:
        if ending in TIFF:
            return is_one_plane(path)
        if ending == ".mha" and meta_header_fault(path) is not None:
            return None
        if ending in CHECKED:
            header = sitk.ImageFileReader()
            header.SetImageIO(CHECKED[ending][0])
            header.SetFileName(str(path))
            header.ReadImageInformation()
            return header.GetDimension() == 2
    except (ImageError, OSError, RuntimeError):
        return None
    return True if ending in KINDS else None


def refusal_of_output(path: Path, *, flat: bool | None, sources: Sequence[Path], tiff_model: bool) -> str | None:
    """Why labels of an image cannot be written to a file of this name; None: they can.

    Args:
        path: The file of labels.
        flat: Whether the image has two dimensions; None: not known.
        sources: The files of the image.
        tiff_model: Whether the model was trained on TIFF volumes, whose spacing stands elsewhere.
    """
    if (refusal := _refusal_of_name(path)) is not None:
        return refusal
    ending = ending_of(path).lower()
    if ending in (".jpg", ".jpeg"):
        return "JPEG changes labels; write PNG"
    if ending not in WRITTEN:
        return f"labels are not written as {ending}, only as {', '.join(WRITTEN)}"
    if flat is False and ending in KINDS:
        return f"{ending} holds one plane, and {sources[0]} is a volume: write {', '.join(WRITTEN[:4])}"
    if flat is False and ending in TIFF and not tiff_model:
        return f"{ending} does not hold where a volume lies: write {', '.join(WRITTEN[:4])}"
    if ending in GIPL and not all(ending_of(path).lower() in GIPL for path in sources):
        return f"{ending} does not hold an image's directions: write {', '.join(WRITTEN[:4])}"
    return None


def last_line(error: RuntimeError) -> str:
    """What SimpleITK means, without the lines of its own source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__

"""The geometry in a NIfTI header, which states it up to three times: sform, qform, and the spacing alone (pixdim).

Readers choose differently. nnU-Net's NibabelIO takes spacing from pixdim and directions from the sform, then the
qform; SimpleITKIO takes spacing from pixdim and directions from the qform unless the sform's code is 1 or the qform's
is 0. Both see the same image only if everything in the header agrees. (NIfTI-1: https://nifti.nimh.nih.gov, "3D IMAGE
(VOLUME) ORIENTATION AND LOCATION IN SPACE".)
"""

from __future__ import annotations

from dataclasses import dataclass

import nibabel
import numpy as np
import SimpleITK as sitk
from nibabel.quaternions import fillpositive, quat2mat

from .faults import ImageFault
from .geometry import Grid, largest_shift_mm, rounding_mm
from .nifti import Nifti

_MM_OF_UNIT = {1: 1000.0, 3: 0.001}  # metres, micrometres; millimetres are 2, and what 0 (unknown) means
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # NIfTI's world is RAS, ITK's is LPS
# Two statements of a spacing agree up to this share; float32 and rounding to three decimals stay far below.
_SPACING_SHARE = 0.005


@dataclass(frozen=True)
class NiftiGeometry:
    """What a header says, once contradictions are resolved.

    Attributes:
        grid: The geometry to use. Its axes need not be at right angles.
        contradiction: What does not agree, continuing a sentence that begins with the file's name; None if all does.
        taken: Where the grid comes from: "sform", "qform" or "pixdim".
        is_ambiguous: Whether two spacings are stated, and both could be true.
    """

    grid: Grid
    contradiction: str | None = None
    taken: str = "pixdim"
    is_ambiguous: bool = False


def read_geometry(nifti: Nifti) -> NiftiGeometry:
    """Resolve a header's geometry.

    If one of sform and qform is a default (1 mm, from 0 on), it gives way to the other, or to a spacing that is not a
    default. Otherwise the sform is taken, as nibabel and FSL do.

    Raises:
        ImageFault: if a number in it is NaN or infinite, or an axis has no length.
    """
    header = nifti.header
    unit_mm = _MM_OF_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    size = (*nifti.shape, 1, 1)[:3]
    pixdim_mm = np.abs(np.asarray(header["pixdim"][1:4], float)) * unit_mm
    used = pixdim_mm[: min(3, len(nifti.shape))]
    pixdim_mm = np.where(pixdim_mm == 0, unit_mm, pixdim_mm)  # as readers do; 0 is "not given"
    _require_finite(nifti, "pixdim", used)
    forms = {name: Grid(size, matrix) for name, matrix in _forms(nifti, unit_mm).items()}
    if not forms:
        matrix = np.diag([*pixdim_mm, 1.0])  # NIfTI's method 1: no orientation, and the origin is ITK's
        return _with_note_on_unit(NiftiGeometry(Grid(size, matrix)), unit_mm)

    stated = {
        "sform": forms.get("sform"),
        "qform": forms.get("qform"),
        "pixdim": Grid(size, np.diag([*pixdim_mm, 1.0])),
    }
    real = {name: grid for name, grid in forms.items() if not grid.is_default}
    name, grid = next(iter((real or forms).items()))
    contradiction, is_ambiguous = _contradiction(stated, name, grid, axes=len(used))
    if not real and contradiction:  # default forms, but a spacing that is not a default
        name, grid, is_ambiguous = "pixdim", Grid(size, grid.voxel_to_mm @ np.diag([*pixdim_mm, 1.0])), False
    if contradiction:
        contradiction = f"has a contradicting header: {contradiction}"
    return _with_note_on_unit(NiftiGeometry(grid, contradiction, name, is_ambiguous), unit_mm)


def refusal_by_itk(nifti: Nifti) -> str | None:
    """Why ITK does not read the file, if its sform's axes are not at right angles; None: it does."""
    if int(nifti.header["sform_code"]) <= 0:
        return None
    axes = nifti.header.get_sform()[:3, :3]
    axes = axes / np.linalg.norm(axes, axis=0)
    if np.allclose(axes.T @ axes, np.eye(3), rtol=0, atol=1e-6):
        return None
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(nifti.path))
    try:
        reader.ReadImageInformation()  # which of the forms it takes, and what it tolerates, it knows best
    except RuntimeError as error:
        return str(error).strip().splitlines()[-1].removeprefix("ITK ERROR: ").rstrip(".!")
    return None


def _forms(nifti: Nifti, unit_mm: float) -> dict[str, np.ndarray]:
    """The matrices that are in use, as their codes say."""
    header, forms = nifti.header, {}
    scale = np.diag([unit_mm, unit_mm, unit_mm, 1.0])
    if int(header["sform_code"]) > 0:
        matrix = header.get_sform()
        _require_finite(nifti, "sform", matrix)
        forms["sform"] = _LPS @ scale @ matrix
    if int(header["qform_code"]) > 0:
        fields = [float(header[key]) for key in ("quatern_b", "quatern_c", "quatern_d")]
        offsets = [float(header[key]) for key in ("qoffset_x", "qoffset_y", "qoffset_z")]
        _require_finite(nifti, "qform", np.array([*fields, *offsets, float(header["pixdim"][0])]))
        if not np.square(fields).sum() <= 1 + 1e-4:
            raise ImageFault(nifti.path, f"has a damaged geometry: its qform's quaternion is {fields}")
        forms["qform"] = _LPS @ scale @ _qform(header)
    for name, matrix in forms.items():
        if not (np.linalg.norm(matrix[:3, :3], axis=0) > 0).all():
            raise ImageFault(nifti.path, f"has a damaged geometry: an axis of its {name} has no length")
    return forms


def _qform(header: nibabel.Nifti1Header) -> np.ndarray:
    """nibabel's qform; where nibabel refuses a spacing of 0 or less, 1 or its absolute value is taken, as ITK does."""
    copy = header.copy()
    pixdim = copy["pixdim"]
    pixdim[1:4] = np.where(pixdim[1:4] == 0, 1, np.abs(pixdim[1:4]))
    b, c, d = (float(copy[key]) for key in ("quatern_b", "quatern_c", "quatern_d"))
    rotation = quat2mat(fillpositive((b, c, d), w2_thresh=-1e-3))  # a little longer than 1 by rounding
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * pixdim[1:4]
    if float(pixdim[0]) < 0:
        matrix[:3, 2] *= -1
    matrix[:3, 3] = [float(copy[key]) for key in ("qoffset_x", "qoffset_y", "qoffset_z")]
    return matrix


def _contradiction(stated: dict[str, Grid | None], name: str, taken: Grid, *, axes: int) -> tuple[str | None, bool]:
    """What the header says that disagrees with the geometry taken; and whether two of its spacings disagree."""
    texts, is_ambiguous = [], False
    for other, grid in stated.items():
        if grid is None or other == name:
            continue
        if not np.allclose(grid.spacing_mm[:axes], taken.spacing_mm[:axes], rtol=_SPACING_SHARE, atol=0):
            if other == "qform":  # its spacing is pixdim's, which comes next
                continue
            texts.append(f"its {other} says {_mm(grid)}, its {name} {_mm(taken)}")
            is_ambiguous |= not np.array_equal(grid.spacing_mm[:axes], (1, 1, 1)[:axes])
        elif other != "pixdim":
            shift_mm = largest_shift_mm(grid.voxel_to_mm, taken.voxel_to_mm, taken.size)
            if not shift_mm <= rounding_mm(taken.spacing_mm):
                texts.append(f"its {other} puts voxels up to {shift_mm:.4g} mm away from where its {name} does")
    return ("; ".join(texts) or None), is_ambiguous


def _with_note_on_unit(geometry: NiftiGeometry, unit_mm: float) -> NiftiGeometry:
    if unit_mm == 1:
        return geometry
    text = f"has a geometry in units of {unit_mm:g} mm, which nnU-Net's NibabelIO takes for mm"
    text = f"{text}; {geometry.contradiction}" if geometry.contradiction else text
    return NiftiGeometry(geometry.grid, text, geometry.taken, geometry.is_ambiguous)


def _require_finite(nifti: Nifti, name: str, numbers: np.ndarray) -> None:
    if not np.isfinite(numbers).all():
        shown = ", ".join(f"{value:g}" for value in np.ravel(numbers))
        raise ImageFault(
            nifti.path,
            f"has a geometry that is not finite: its {name} is ({shown}). Export it again, or set its header",
        )


def _mm(grid: Grid) -> str:
    return "x".join(f"{length:.4g}" for length in grid.spacing_mm) + " mm"

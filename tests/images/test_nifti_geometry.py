"""Geometries that a header states up to three times."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from nnunetv2_lightm.images.faults import ImageFault
from nnunetv2_lightm.images.nifti import read_header
from nnunetv2_lightm.images.nifti_geometry import read_geometry

from .nifti_bytes import PIXDIM, SFORM, UNITS, edit, write_nifti

VALUES = np.zeros((6, 5, 4), np.int16)
EYE = np.eye(4)
REAL = np.diag([0.7, 0.7, 1.6, 1.0])
OTHER = np.diag([0.5, 0.5, 2.0, 1.0])
MOVED = REAL + np.array([[0, 0, 0, 10], [0, 0, 0, -20], [0, 0, 0, 30], [0, 0, 0, 0]])
TURNED = np.array([[0, -0.7, 0, 0], [0.7, 0, 0, 0], [0, 0, 1.6, 0], [0, 0, 0, 1]])
SPACING = (0.7, 0.7, 1.6)
LPS = np.diag([-1, -1, 1, 1])


def geometry_of(tmp_path, **header):
    return read_geometry(read_header(write_nifti(tmp_path / "image.nii", VALUES, **header)))


@pytest.mark.parametrize(
    "header",
    [
        {"sform": MOVED, "pixdim": SPACING},
        {"qform": MOVED},
        {"sform": MOVED, "qform": MOVED},
        {"sform": TURNED, "qform": TURNED},
        {"sform": MOVED, "sform_code": 2, "qform": MOVED},
        {"sform": MOVED * [-1, 1, 1, 1], "qform": MOVED * [-1, 1, 1, 1]},
        {"pixdim": SPACING},
        {"sform": MOVED + 1e-4, "qform": MOVED},  # rounding
    ],
)
def test_headers_that_agree(tmp_path, header):
    geometry = geometry_of(tmp_path, **header)
    assert geometry.contradiction is None and not geometry.is_ambiguous
    assert geometry.grid.spacing_mm == pytest.approx(SPACING, abs=1e-3)
    if "pixdim" not in header:
        affine = nibabel.load(tmp_path / "image.nii").affine
        assert LPS @ geometry.grid.voxel_to_mm == pytest.approx(affine, abs=1e-4)


@pytest.mark.parametrize(
    ("header", "taken", "spacing"),
    [
        ({"sform": REAL, "pixdim": (1, 1, 1)}, "sform", SPACING),
        ({"sform": REAL, "pixdim": (0, 0, 0)}, "sform", SPACING),
        ({"sform": EYE, "qform": REAL}, "qform", SPACING),
        ({"sform": EYE, "pixdim": SPACING}, "pixdim", SPACING),
        ({"sform": EYE, "sform_code": 2, "qform": OTHER}, "qform", (0.5, 0.5, 2)),
        ({"sform": REAL, "qform": EYE}, "sform", SPACING),
    ],
)
def test_a_default_gives_way(tmp_path, header, taken, spacing):
    geometry = geometry_of(tmp_path, **header)
    assert geometry.taken == taken and "contradicting" in geometry.contradiction and not geometry.is_ambiguous
    assert geometry.grid.spacing_mm == pytest.approx(spacing)


@pytest.mark.parametrize("other", [MOVED, TURNED, REAL * [-1, 1, 1, 1]])
@pytest.mark.parametrize("codes", [(1, 1), (2, 1), (1, 2), (4, 2)])
def test_forms_that_put_voxels_elsewhere(tmp_path, other, codes):
    geometry = geometry_of(
        tmp_path, sform=other, sform_code=codes[0], qform=MOVED + np.eye(4, k=3), qform_code=codes[1]
    )
    assert "away" in geometry.contradiction and geometry.taken == "sform" and not geometry.is_ambiguous
    assert LPS @ geometry.grid.voxel_to_mm == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize("header", [{"sform": REAL, "qform": OTHER}, {"sform": OTHER, "pixdim": SPACING}])
def test_two_spacings_that_both_could_be_true(tmp_path, header):
    geometry = geometry_of(tmp_path, **header)
    assert geometry.is_ambiguous and "0.7x0.7x1.6 mm" in geometry.contradiction


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("header", "offset"),
    [
        ({"sform": REAL, "qform": REAL}, SFORM),
        ({"sform": REAL, "qform": REAL}, SFORM + 12),
        ({"sform": REAL, "qform": REAL}, SFORM + 44),
        ({"sform": REAL, "pixdim": SPACING}, PIXDIM + 4),
        ({"sform": REAL, "qform": REAL}, PIXDIM),
        ({"sform": REAL, "qform": REAL}, 256),
        ({"qform": REAL}, 276),
        ({"pixdim": SPACING}, PIXDIM + 12),
    ],
)
def test_numbers_that_are_not_finite_are_refused(tmp_path, header, offset, bad):
    path = write_nifti(tmp_path / "image.nii", VALUES, **header)
    with pytest.raises(ImageFault, match="geometry that is not finite"):
        read_geometry(read_header(edit(path, offset, "<f", bad)))


def test_a_form_that_is_not_in_use_does_not_matter(tmp_path):
    path = write_nifti(tmp_path / "image.nii", VALUES, qform=REAL)
    assert read_geometry(read_header(edit(path, SFORM, "<f", np.nan))).contradiction is None


@pytest.mark.parametrize("header", [{"sform": np.diag([0.7, 0, 1.6, 1]), "pixdim": SPACING}])
def test_an_axis_without_length_is_refused(tmp_path, header):
    with pytest.raises(ImageFault, match="no length"):
        geometry_of(tmp_path, **header)


@pytest.mark.parametrize(("unit", "factor"), [(1, 1000), (3, 0.001)])
def test_metres_and_micrometres_are_converted_and_said(tmp_path, unit, factor):
    path = write_nifti(tmp_path / "image.nii", VALUES, sform=MOVED, qform=MOVED)
    geometry = read_geometry(read_header(edit(path, UNITS, "<B", unit)))
    assert "units of" in geometry.contradiction
    assert geometry.grid.spacing_mm == pytest.approx(np.multiply(SPACING, factor))


@pytest.mark.parametrize("affine", [EYE, np.diag([-1, -1, 1, 1]), np.diag([1, -1, 1, 1])])
def test_default_geometries_are_known(tmp_path, affine):
    nibabel.save(nibabel.Nifti1Image(VALUES, affine), tmp_path / "image.nii")
    assert read_geometry(read_header(tmp_path / "image.nii")).grid.is_default
    assert geometry_of(tmp_path, pixdim=(1, 1, 1)).grid.is_default
    assert not geometry_of(tmp_path, sform=MOVED).grid.is_default

"""Geometries that are lost, contradictory or not finite, and the table that repairs them."""

from __future__ import annotations

import json
import re

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunetv2_lightm.dataset_conversion import Dataset801_LiTS

from ..images.nifti_bytes import edit, write_nifti

SHAPE = (10, 8, 6)
REAL = np.array([[0.7, 0, 0, -50], [0, 0.7, 0, 20], [0, 0, 1.6, -300], [0, 0, 0, 1]])
NAN = float("nan")


@pytest.fixture
def source(tmp_path):
    """Case 1 is sound."""
    folder = tmp_path / "lits"
    folder.mkdir()
    add(folder, 1, REAL)
    return folder


def add(folder, number: int, image_affine, label_affine=None, name: str = "{}") -> None:
    rng = np.random.default_rng(number)
    image, label = rng.integers(-1000, 1000, SHAPE).astype(np.int16), rng.integers(0, 3, SHAPE).astype(np.uint8)
    label_affine = image_affine if label_affine is None else label_affine
    nibabel.save(nibabel.Nifti1Image(image, image_affine), folder / f"volume-{name.format(number)}.nii")
    nibabel.save(nibabel.Nifti1Image(label, label_affine), folder / f"segmentation-{name.format(number)}.nii")


def convert(source, *arguments: object) -> int:
    return Dataset801_LiTS.main([str(source), "--split", "none", "--workers", "1", *map(str, arguments)])


def report(folders, case: str) -> dict:
    content = json.loads((folders.raw / "Dataset801_LiTS/conversion_report.json").read_text())
    return next(entry for entry in content["cases"] if entry["case"] == case)


def spacings_read(folders, case: str) -> list[tuple[float, ...]]:
    """(z, y, x) of image and label, as each of nnU-Net's readers takes it."""
    raw = folders.raw / "Dataset801_LiTS"
    files = (raw / "imagesTr" / f"{case}_0000.nii.gz", raw / "labelsTr" / f"{case}.nii.gz")
    return [
        tuple(reader.read_images((str(file),))[1]["spacing"])
        for reader in (SimpleITKIO(), NibabelIO())
        for file in files
    ]


@pytest.mark.parametrize("affine", [np.eye(4), np.diag([-1, -1, 1, 1])])
def test_a_default_geometry_is_noted(source, folders, affine, capsys):
    add(source, 28, affine)
    assert convert(source) == 0
    assert report(folders, "LiTS_001")["notes"] == []
    notes = report(folders, "LiTS_028")["notes"]
    assert len(notes) == 2 and all("may have lost its geometry" in note and "--spacings" in note for note in notes)
    assert "LiTS_028: volume-28.nii may have lost its geometry" in capsys.readouterr().out


@pytest.mark.parametrize("case", ["28", "028", "LiTS_028", "volume-28", "volume-28.nii"])
@pytest.mark.parametrize(
    "form", ["case,z,y,x\n{},1.6,0.75,0.7\n", "{};1.6;0.75;0.7", "# from the DICOM\n{}\t1.6\t0.75\t0.7\n\n"]
)
def test_a_table_repairs_image_and_label(source, folders, tmp_path, case, form):
    add(source, 28, np.eye(4))
    table = tmp_path / "spacings.csv"
    table.write_text(form.format(case))
    assert convert(source, "--spacings", table) == 0
    entry = report(folders, "LiTS_028")
    assert entry["status"] == "repaired" and entry["notes"] == []
    assert sum("replaced by 1.6x0.75x0.7 mm (z, y, x), of --spacings" in text for text in entry["repairs"]) == 2
    assert spacings_read(folders, "LiTS_028") == [pytest.approx((1.6, 0.75, 0.7))] * 4
    assert report(folders, "LiTS_001")["status"] == "converted"


def test_a_row_that_repeats_the_header_changes_nothing(source, folders, tmp_path):
    (tmp_path / "table.csv").write_text("1,1.6,0.7,0.7\n")
    assert convert(source, "--spacings", tmp_path / "table.csv") == 0
    assert report(folders, "LiTS_001")["repairs"] == []


def test_a_row_that_contradicts_the_header_is_refused(source, folders, tmp_path, capsys):
    add(source, 2, REAL)
    (tmp_path / "table.csv").write_text("2,5,0.7,0.7\n")
    assert convert(source, "--spacings", tmp_path / "table.csv") == 0
    assert "1.6x0.7x0.7 mm (z, y, x), --spacings says 5x0.7x0.7 mm" in report(folders, "LiTS_002")["reason"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("77,1,1,1\n", "names cases that are not in .*: 77"),
        ("1,1,1\n", "line 1: '1,1,1'; expected CASE,Z,Y,X"),
        ("case,z,y,x\n1,a,1,1\n", "line 2"),
        ("1,nan,1,1\n", "line 1"),
        ("1,0,1,1\n", "line 1"),
        ("1,-1,1,1\n", "line 1"),
        ("1,1,1,1\n1,2,1,1\n", "line 2: 1 occurs twice"),
        ("1,1,1,1\nvolume-1,2,1,1\n", "names LiTS_001 twice"),
        ("", "holds no spacing"),
    ],
)
def test_bad_tables_are_refused_before_any_work(source, folders, tmp_path, capsys, text, message):
    (tmp_path / "table.csv").write_text(text)
    assert convert(source, "--spacings", tmp_path / "table.csv") == 1
    assert re.search(message, capsys.readouterr().err)
    assert folders.everything() == []


@pytest.mark.parametrize(
    ("image", "label", "lost", "right"),
    [(np.eye(4), REAL, "image", "label"), (REAL, np.eye(4), "label", "image")],
)
def test_where_one_file_has_lost_its_geometry_the_other_is_named(source, folders, image, label, lost, right):
    add(source, 2, image, label)
    assert convert(source) == 0
    reason = report(folders, "LiTS_002")["reason"]
    assert f"copy the header of the {right} to the {lost}, which seems to have lost its own" in reason


def test_a_table_does_not_hide_which_file_has_lost_its_geometry(source, folders, tmp_path):
    """The table gives the spacing; where the volume lies, the label alone knows."""
    add(source, 2, np.eye(4), REAL)
    (tmp_path / "table.csv").write_text("2,1.6,0.7,0.7\n")
    assert convert(source, "--spacings", tmp_path / "table.csv") == 0
    reason = report(folders, "LiTS_002")["reason"]
    assert "copy the header of the label to the image, which seems to have lost its own" in reason


@pytest.mark.parametrize("good", [0, 1])
def test_a_geometry_of_nan_is_refused(source, folders, good):
    for name in ("volume-2.nii", "segmentation-2.nii"):
        values = np.zeros(SHAPE, np.int16)
        write_nifti(source / name, values, sform=REAL, qform=REAL if good else None)
        edit(source / name, 280, "<f", NAN)
    assert convert(source) == 0
    assert "geometry that is not finite: its sform is (nan" in report(folders, "LiTS_002")["reason"]


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ({"sform": REAL, "pixdim": (1, 1, 1)}, "sform"),
        ({"sform": np.eye(4), "qform": REAL}, "qform"),
        ({"sform": np.eye(4), "pixdim": (0.7, 0.7, 1.6)}, "pixdim"),
        ({"sform": REAL, "qform": REAL + np.eye(4, k=3) * 50}, "sform"),
        ({"sform": REAL, "sform_code": 2, "qform": REAL * [-1, 1, 1, 1]}, "sform"),
    ],
)
def test_a_contradicting_header_is_repaired_for_both_readers(source, folders, header, taken):
    for name in ("volume-2.nii", "segmentation-2.nii"):
        write_nifti(source / name, np.zeros(SHAPE, np.int16) + (name[0] == "s"), **header)
    assert convert(source) == 0
    repairs = report(folders, "LiTS_002")["repairs"]
    assert sum("contradicting header" in text and f"its {taken} was used" in text for text in repairs) == 2
    assert spacings_read(folders, "LiTS_002") == [pytest.approx((1.6, 0.7, 0.7))] * 4
    written = folders.raw / "Dataset801_LiTS/imagesTr/LiTS_002_0000.nii.gz"
    itk = sitk.ReadImage(str(written))
    affine = nibabel.load(written).affine
    ends = np.array(itk.TransformIndexToPhysicalPoint((9, 7, 5))) * [-1, -1, 1]
    assert ends == pytest.approx((affine @ [9, 7, 5, 1])[:3], abs=1e-3)
    if "sform" in (taken,):
        assert affine == pytest.approx(header["sform"], abs=1e-4)


def test_two_spacings_that_both_could_be_true_are_asked_for(source, folders, tmp_path):
    for name in ("volume-2.nii", "segmentation-2.nii"):
        write_nifti(source / name, np.zeros(SHAPE, np.int16) + 1, sform=REAL, qform=np.diag([0.5, 0.5, 2, 1]))
    assert convert(source) == 0
    assert "contradicting header" in report(folders, "LiTS_002")["reason"]
    assert "--spacings" in report(folders, "LiTS_002")["reason"]
    (tmp_path / "table.csv").write_text("2,2,0.5,0.5\n")
    assert convert(source, "--spacings", tmp_path / "table.csv", "--overwrite") == 0
    assert spacings_read(folders, "LiTS_002") == [pytest.approx((2, 0.5, 0.5))] * 4


def test_a_label_that_covers_everything_is_noted(source, folders):
    add(source, 2, REAL)
    nibabel.save(nibabel.Nifti1Image(np.ones(SHAPE, np.uint8), REAL), source / "segmentation-2.nii")
    assert convert(source) == 0
    assert "has no background" in report(folders, "LiTS_002")["notes"][0]

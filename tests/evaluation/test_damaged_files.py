"""No scores for files that a reader accepts although they are truncated, contain NaN or lie on another grid."""

from __future__ import annotations

import gzip
import json
import os
import sys

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from nnunetv2_lightm.commands.evaluate import main
from nnunetv2_lightm.evaluation.segmentations import choose_reader

from ..images.nifti_bytes import DIM, SCALING, VOX_OFFSET, edit, write_nifti

AFFINE = np.array([[0.7, 0, 0, -50], [0, 0.7, 0, 20], [0, 0, 1.6, -300], [0, 0, 0, 1]])
SHAPE = (20, 18, 16)


@pytest.fixture(params=[None, "NibabelIO"], ids=["SimpleITKIO", "NibabelIO"])
def folders(request, tmp_path):
    rng = np.random.default_rng(0)
    folders = tmp_path / "pred", tmp_path / "ref"
    for folder in folders:
        folder.mkdir()
        for number in range(2):
            save(folder / f"c{number}.nii.gz", rng.integers(0, 2, SHAPE).astype(np.uint8))
    content = {"labels": {"background": 0, "liver": 1}, "file_ending": ".nii.gz"}
    if request.param:
        content["overwrite_image_reader_writer"] = request.param
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    return folders


def save(path, values, affine=AFFINE) -> None:
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


def values_of(path) -> np.ndarray:
    return np.asanyarray(nibabel.load(path).dataobj)


def with_value(value: float, dtype=np.float32):
    def spoil(path):
        values = values_of(path).astype(dtype)
        values[3, 4, 5] = value
        save(path, values)

    return spoil


def with_affine(change):
    def spoil(path):
        save(path, values_of(path), change(AFFINE.copy()))

    return spoil


def truncate(path):
    os.truncate(path, 300)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))


def move(affine):
    affine[2, 3] += 3
    return affine


def stretch(affine):
    affine[2, 2] *= 1.1
    return affine


def mirror(affine):
    affine[0] *= -1
    return affine


@pytest.mark.parametrize(("which", "case"), [(0, "c1"), (1, "c0")], ids=["prediction", "first_reference"])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (truncate, "is truncated"),
        (flip, "cannot be read"),
        (lambda path: path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-20])), "is truncated"),
        (with_value(np.nan), "NaN"),
        (with_value(np.inf), "infinite"),
        (with_value(0.9999999), "0.9999999"),
        (with_value(0.99999999999, np.float64), "0.99999999999"),
        (with_value(-1), "holds the values -1"),
        (with_value(-1, np.int8), "holds the values -1"),
        (with_value(7, np.int16), "holds the values 7"),
        (lambda path: edit(path, SCALING, "<2f", np.nan, 0), "not defined"),
        (lambda path: edit(path, DIM + 6, "<h", 15), "holds more than"),
        (lambda path: edit(path, VOX_OFFSET, "<f", 600 << 20), "beyond 16 MiB"),
        (with_affine(move), "3 mm away"),
        (with_affine(stretch), "mm away"),
        (with_affine(mirror), "mm away"),
        (with_affine(lambda affine: np.eye(4)), "seems to have lost its own"),
        (lambda path: edit(path, 280, "<f", np.nan), "not finite"),
    ],
)
def test_no_score_but_one_sentence(folders, capsys, which, case, spoil, words):
    path = folders[which] / f"{case}.nii.gz"
    spoil(path)
    assert main([*map(str, folders)]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and str(path) in captured.err and words in captured.err
    assert captured.err.count("\n") == 1


def test_rounding_is_scored_and_reported(folders, capsys):
    save(folders[0] / "c1.nii.gz", values_of(folders[0] / "c1.nii.gz"), AFFINE + np.eye(4, k=3) * 0.01)
    assert main([*map(str, folders)]) == 0
    captured = capsys.readouterr()
    assert "| liver" in captured.out
    assert "1 remark(s)" in captured.err and "differ in their geometry, by 0.01 mm at most" in captured.err


def test_sound_files_have_no_remark(folders, capsys):
    assert main([*map(str, folders)]) == 0
    assert capsys.readouterr().err == ""


def test_a_contradicting_header_is_reported_and_gives_no_distance(folders, capsys):
    for folder in folders:
        for name in ("c0", "c1"):
            values = values_of(folder / f"{name}.nii.gz").astype(np.uint8)
            write_nifti(folder / f"{name}.nii.gz", values, sform=AFFINE, pixdim=(1, 1, 1))
    assert main([*map(str, folders)]) == 0
    assert "has a contradicting header" in capsys.readouterr().err
    assert main([*map(str, folders), "--surface"]) == 1
    error = capsys.readouterr().err
    assert "the spacing (z, y, x) is (1.0, 1.0, 1.0) mm or" in error and "without --surface" in error


def test_a_contradicting_header_gives_no_distance_by_a_reader_that_turns_the_axes_either(folders, capsys):
    description = folders[0].parent / "dataset.json"
    content = json.loads(description.read_text()) | {"overwrite_image_reader_writer": "NibabelIOWithReorient"}
    description.write_text(json.dumps(content))
    for folder in folders:
        for name in ("c0", "c1"):
            values = values_of(folder / f"{name}.nii.gz").astype(np.uint8)
            write_nifti(folder / f"{name}.nii.gz", values, sform=AFFINE, pixdim=(1, 1, 1))
    assert main([*map(str, folders), "--surface"]) == 1
    assert "without --surface" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names themselves")
def test_names_that_are_not_utf8(folders, capsys):
    folders[1].joinpath("c1.nii.gz").rename(folders[1] / os.fsdecode(b"Leber\xfc.nii.gz"))
    assert main([*map(str, folders)]) == 1
    assert f"{folders[1]}/Leber\\xfc.nii.gz is not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
@pytest.mark.parametrize("bad", [np.nan, 0.5])
def test_other_formats_of_itk(tmp_path, capsys, ending, bad):
    for name in ("pred", "ref"):
        values = np.zeros((4, 5, 6), np.float32)
        values[1, 2, 3] = bad if name == "pred" else 1
        (tmp_path / name).mkdir()
        sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / name / f"c{ending}"))
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"b": 0, "l": 1}, "file_ending": ending}))
    assert main([str(tmp_path / "pred"), str(tmp_path / "ref")]) == 1
    assert f"pred/c{ending} has" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: os.truncate(path, path.stat().st_size - 20), "truncated"),
        (flip, "cannot be read as PNG"),
        (lambda path: Image.open(path).convert("RGB").save(path), "3 channels"),
        (lambda path: Image.open(path).convert("LA").save(path), "transparency"),
        (lambda path: Image.open(path).save(path, format="JPEG"), "a JPEG image"),
        (lambda path: Image.new("L", (14000, 14000)).save(path), "too large"),
        (lambda path: Image.new("L", (8, 9)).save(path), "9 x 8 voxels"),
    ],
)
def test_damaged_png_files(tmp_path, capsys, spoil, words):
    for name in ("pred", "ref"):
        (tmp_path / name).mkdir()
        values = np.random.default_rng(0).integers(0, 2, (40, 30)).astype(np.uint8)
        Image.fromarray(values).save(tmp_path / name / "c.png")
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"b": 0, "l": 1}, "file_ending": ".png"}))
    assert main([str(tmp_path / "pred"), str(tmp_path / "ref")]) == 0
    spoil(tmp_path / "pred/c.png")
    capsys.readouterr()
    assert main([str(tmp_path / "pred"), str(tmp_path / "ref")]) == 1
    assert words in capsys.readouterr().err


def test_the_readers_are_nnunets(folders):
    assert type(choose_reader(folders[1] / "c0.nii.gz", ".nii.gz")).__name__ == "SimpleITKIO"

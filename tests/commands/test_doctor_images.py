"""doctor --dataset on image files that would spoil a training without stopping it."""

from __future__ import annotations

import json
import os
import shutil

import nibabel
import numpy as np
import pytest
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from nnunetv2_lightm.commands.doctor.finding import Finding, Status
from nnunetv2_lightm.commands.doctor.images import check_images

from ..images.nifti_bytes import SCALING, edit, write_nifti

SHAPE = (6, 5, 4)
AFFINE = np.array([[0.7, 0, 0, -50], [0, 0.7, 0, 20], [0, 0, 1.6, -300], [0, 0, 0, 1]])
DATASET_JSON = {
    "labels": {"background": 0, "liver": 1, "tumor": 2},
    "channel_names": {"0": "CT"},
    "file_ending": ".nii.gz",
}
TWO = {**DATASET_JSON, "channel_names": {"0": "CT", "1": "T1"}}


@pytest.fixture
def raw(tmp_path):
    """Two sound cases."""
    folder = tmp_path / "Dataset801_LiTS"
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir(parents=True)
    for case in ("a", "b"):
        save(folder / f"imagesTr/{case}_0000.nii.gz", image())
        save(folder / f"labelsTr/{case}.nii.gz", label())
    return folder


def image() -> np.ndarray:
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def label() -> np.ndarray:
    return (np.arange(np.prod(SHAPE)) % 3).reshape(SHAPE).astype(np.uint8)


def save(path, values, affine=AFFINE) -> None:
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


def only(findings: list[Finding], status: Status) -> str:
    """The message of the one finding, of this status."""
    (finding,) = findings
    assert finding.status is status
    return finding.message


def with_nan(path) -> None:
    values = image()
    values[1, 2, 3] = np.nan
    save(path, values)


def test_a_sound_data_set(raw):
    assert "of 2 cases are whole" in only(check_images(raw, DATASET_JSON), Status.OK)


@pytest.mark.parametrize(
    ("file", "spoil", "words"),
    [
        ("imagesTr/b_0000.nii.gz", with_nan, "NaN"),
        ("imagesTr/b_0000.nii.gz", lambda path: edit(path, SCALING, "<2f", np.nan, 0), "not defined"),
        ("imagesTr/b_0000.nii.gz", lambda path: os.truncate(path, 200), "truncated"),
        ("imagesTr/b_0000.nii.gz", lambda path: save(path, image(), AFFINE + np.eye(4, k=3) * 9), "away"),
        ("imagesTr/b_0000.nii.gz", lambda path: save(path, image()[1:]), "4 x 5 x 5"),
        ("imagesTr/b_0000.nii.gz", lambda path: edit(path, 280, "<f", np.nan), "not finite"),
        ("labelsTr/b.nii.gz", lambda path: save(path, label() + 0.5), "not integers, such as 0.5"),
        ("labelsTr/b.nii.gz", lambda path: save(path, label() + np.uint8(1)), "holds the values 3"),
        ("labelsTr/b.nii.gz", lambda path: save(path, label().astype(np.int8) - np.int8(1)), "holds the values -1"),
        ("imagesTs/c_0000.nii.gz", with_nan, "NaN"),
        ("imagesTr/c.nii.gz", lambda path: save(path, image()), "no channel number"),
        ("imagesTr/._b_0000.nii.gz", lambda path: path.write_bytes(b"x"), "hidden"),
    ],
)
def test_a_faulty_file_is_named(raw, file, spoil, words):
    spoil(raw / file)
    message = only(check_images(raw, DATASET_JSON), Status.FAIL)
    assert message.startswith("1 faults: ") and str(raw / file) in message and words in message


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ([0], "case a lacks a_0001.nii.gz (T1)"),
        ([1], "case a lacks a_0000.nii.gz (CT)"),
        ([0, 2], "case a lacks a_0001.nii.gz (T1)"),
        ([0, 1, 2], "case a has 3 channels, 2 are needed (CT, T1)"),
    ],
)
def test_missing_and_surplus_channels(raw, numbers, words):
    (raw / "imagesTr/a_0000.nii.gz").unlink()
    save(raw / "imagesTr/b_0001.nii.gz", image())
    for number in numbers:
        save(raw / f"imagesTr/a_{number:04d}.nii.gz", image())
    assert words in only(check_images(raw, TWO), Status.FAIL)


def test_channels_on_different_grids(raw):
    save(raw / "imagesTr/a_0001.nii.gz", image())
    save(raw / "imagesTr/b_0001.nii.gz", image(), AFFINE * [1, 1, 1.5, 1])
    assert "b_0001.nii.gz lies up to 2.4 mm away from" in only(check_images(raw, TWO), Status.FAIL)


def test_channels_that_lie_elsewhere(raw):
    """nnU-Net only warns, and stacks them."""
    save(raw / "imagesTr/a_0001.nii.gz", image())
    save(raw / "imagesTr/b_0001.nii.gz", image(), AFFINE + 25 * np.eye(4, k=3) * [0, 0, 0, 1])
    assert "b_0001.nii.gz lies up to 25 mm away from" in only(check_images(raw, TWO), Status.FAIL)


def test_tilted_axes_are_noted_with_what_helps(raw):
    """SimpleITK refuses them; nnU-Net chooses it as the reader by the first case."""
    tilted = AFFINE.copy()
    tilted[0, 2] = 0.4
    save(raw / "imagesTr/b_0000.nii.gz", image(), tilted)
    save(raw / "labelsTr/b.nii.gz", label(), tilted)
    message = only(check_images(raw, DATASET_JSON), Status.NOTE)
    assert "b_0000.nii.gz has axes that are not at right angles" in message and "NibabelIO" in message


def test_default_geometry_is_one_note_for_all_files(raw):
    for file in raw.glob("*/*.nii.gz"):
        save(file, np.asanyarray(nibabel.load(file).dataobj), np.eye(4))
    message = only(check_images(raw, DATASET_JSON), Status.NOTE)
    assert "imagesTr/a_0000.nii.gz may have lost its geometry" in message and "3 more like it" in message


def test_contradicting_headers_are_noted(raw):
    write_nifti(raw / "imagesTr/a_0000.nii.gz", image(), sform=AFFINE, pixdim=(1, 1, 1))
    assert "its pixdim says 1x1x1 mm, its sform 0.7x0.7x1.6 mm" in only(check_images(raw, DATASET_JSON), Status.NOTE)


def test_different_orientations_are_noted(raw):
    for name in ("imagesTr/a_0000", "labelsTr/a"):
        file = raw / f"{name}.nii.gz"
        save(file, np.asanyarray(nibabel.load(file).dataobj), np.diag([-1, -1, 1, 1]) @ AFFINE)
    assert "LPS 1" in only(check_images(raw, DATASET_JSON), Status.NOTE)


def test_labels_that_are_empty_in_all_cases(raw):
    for case in ("a", "b"):
        save(raw / f"labelsTr/{case}.nii.gz", np.zeros(SHAPE, np.uint8))
    message = only(check_images(raw, DATASET_JSON), Status.FAIL)
    assert "no label file holds any of liver, tumor" in message and "IndexError" in message


def test_a_label_that_no_case_has_is_noted(raw):
    for case in ("a", "b"):
        save(raw / f"labelsTr/{case}.nii.gz", label() % 2)
    assert "no label file holds tumor" in only(check_images(raw, DATASET_JSON), Status.NOTE)


def test_regions_count_by_their_values(raw):
    regions = {**DATASET_JSON, "labels": {"background": 0, "whole": [1, 2], "ignore": 3}}
    only(check_images(raw, regions), Status.OK)


def test_cases_listed_in_dataset_json(raw):
    listed = {"a": {"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/a.nii.gz"}}
    with_nan(raw / "imagesTr/b_0000.nii.gz")
    only(check_images(raw, {**DATASET_JSON, "dataset": listed}), Status.OK)
    with_nan(raw / "imagesTr/a_0000.nii.gz")
    assert "a_0000.nii.gz has 1 NaN" in only(check_images(raw, {**DATASET_JSON, "dataset": listed}), Status.FAIL)


def test_a_listed_label_that_is_not_there_is_named(raw):
    listed = {"a": {"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/nothere.nii.gz"}}
    message = only(check_images(raw, {**DATASET_JSON, "dataset": listed}), Status.FAIL)
    assert "labelsTr/nothere.nii.gz, a label that dataset.json lists, does not exist" in message


def test_nifti_2_is_noted(raw):
    for name in ("imagesTr/b_0000", "labelsTr/b"):
        old = nibabel.load(raw / f"{name}.nii.gz")
        nibabel.save(nibabel.Nifti2Image(np.asanyarray(old.dataobj), old.affine), raw / f"{name}.nii.gz")
    with pytest.raises(RuntimeError, match="ImageIO reader"):
        SimpleITKIO().read_images([str(raw / "imagesTr/b_0000.nii.gz")])
    message = only(check_images(raw, DATASET_JSON), Status.NOTE)
    assert "b_0000.nii.gz is NIfTI-2, which SimpleITK does not read" in message and "NibabelIO" in message


@pytest.mark.parametrize("ending", [".jp2", ".webp", ".ppm"])
def test_channels_of_a_format_that_is_not_looked_into_are_not_counted(tmp_path, ending):
    """As of a reader of the user's own, or NaturalImage2DIO on what else scikit-image reads."""
    for name in ("imagesTr/a_0000", "labelsTr/a"):
        path = tmp_path / f"{name}{ending}"
        path.parent.mkdir()
        path.write_bytes(b"whatever it is")
    colours = {"0": "R", "1": "G", "2": "B"}
    content = {**DATASET_JSON, "channel_names": colours, "file_ending": ending}
    assert {finding.status for finding in check_images(tmp_path, content)} <= {Status.OK, Status.NOTE}


def test_large_and_odd_png_files(tmp_path):
    """Pillow warns beyond 89 million pixels, and reads twice as many."""
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "labelsTr").mkdir()
    large = np.zeros((9500, 9500), np.uint8)
    large[5, 7] = 1
    Image.fromarray(large).save(tmp_path / "labelsTr/a.png", compress_level=1)
    shutil.copy(tmp_path / "labelsTr/a.png", tmp_path / "imagesTr/a_0000.png")
    content = {**DATASET_JSON, "file_ending": ".png"}
    assert "tumor" in only(check_images(tmp_path, content), Status.NOTE)
    # Text that inflates beyond Pillow's limit, as some XMP does.
    info = PngInfo()
    info.add_text("XML:com.adobe.xmp", "x" * (2 << 20), zip=True)
    Image.fromarray(large[:50, :50]).save(tmp_path / "imagesTr/a_0000.png", pnginfo=info)
    failures = [finding for finding in check_images(tmp_path, content) if finding.status is Status.FAIL]
    assert "a_0000.png cannot be read as PNG" in only(failures, Status.FAIL)


def test_a_png_that_asks_to_be_turned_is_noted(tmp_path):
    for name in ("imagesTr/a_0000", "labelsTr/a"):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir()
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(label()[0]).save(path, exif=exif if "images" in name else None)
    content = {**DATASET_JSON, "labels": {"b": 0, "l": 1, "m": 2}, "file_ending": ".png"}
    assert "EXIF orientation 6" in only(check_images(tmp_path, content), Status.NOTE)


def test_colour_images_have_three_channels(tmp_path):
    for name in ("imagesTr", "labelsTr"):
        (tmp_path / name).mkdir()
    rgb = np.stack([label()[0] * 50] * 3, axis=-1)
    rgb[0, 0] = 1, 2, 3
    Image.fromarray(rgb).save(tmp_path / "imagesTr/a_0000.png")
    Image.fromarray(label()[0]).save(tmp_path / "labelsTr/a.png")
    content = {**DATASET_JSON, "channel_names": {"0": "R", "1": "G", "2": "B"}, "file_ending": ".png"}
    only(check_images(tmp_path, json.loads(json.dumps(content))), Status.OK)

"""Montgomery and Shenzhen: layouts, masks, refusals, resizing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from skimage import io

from nnunetv2_lightm.dataset_conversion._convert import ConversionOptions
from nnunetv2_lightm.dataset_conversion._errors import ConversionError
from nnunetv2_lightm.dataset_conversion.Dataset802_MontgomeryShenzhen import convert_montgomery_shenzhen, main

DATASET = "Dataset802_MontgomeryShenzhen"


def convert(xrays, *, only=None, **options):
    options = ConversionOptions(**{"split": None, "workers": 1, **options})
    return convert_montgomery_shenzhen(xrays.folder, options, only=only)


def case_of(report, case):
    return next(entry for entry in report.cases if entry.case == case)


def stored(folders, name: str) -> np.ndarray:
    return io.imread(folders.raw / DATASET / name)


def names(folders, folder: str) -> list[str]:
    return sorted(path.name for path in (folders.raw / DATASET / folder).iterdir())


@pytest.mark.parametrize("masks", ["masks", "Masks", "mask"])
def test_kaggle_layout(xrays, folders, masks):
    xrays.folder = xrays.folder / "Lung Segmentation"
    xrays.add_kaggle(1, 2, masks=masks)
    xrays.add_kaggle(3, source="CHN", masks=masks)
    xrays.write(xrays.pixels(4), "CXR_png/CHNCXR_0004_1.png")
    xrays.write(xrays.pixels(9), "test/CHNCXR_0009_1.png")
    xrays.folder = xrays.folder.parent
    report = convert(xrays)
    assert [(case.case, case.status, case.part) for case in report.cases] == [
        ("CHNCXR_0003_0", "converted", "train"),
        ("CHNCXR_0004_1", "converted", "unlabelled"),
        ("MCUCXR_0001_0", "converted", "train"),
        ("MCUCXR_0002_0", "converted", "train"),
    ]
    assert report.ignored_files == ["Lung Segmentation/test/CHNCXR_0009_1.png"]
    assert names(folders, "imagesTs") == ["CHNCXR_0004_1_0000.png"]
    for number, case in ((1, "MCUCXR_0001_0"), (3, "CHNCXR_0003_0")):
        assert np.array_equal(stored(folders, f"imagesTr/{case}_0000.png"), xrays.pixels(number))
        assert np.array_equal(stored(folders, f"labelsTr/{case}.png"), xrays.mask(number) // 255)
        assert stored(folders, f"labelsTr/{case}.png").dtype == np.uint8


def add_nlm(xrays, number, left=True, right=True):
    """Montgomery with its mask as two halves, which overlap by a column."""
    stem = f"MCUCXR_{number:04d}_1"
    xrays.write(xrays.pixels(number), f"MontgomerySet/CXR_png/{stem}.png")
    mask = xrays.mask(number)
    for wanted, half, columns in ((left, "leftMask", slice(7, None)), (right, "rightMask", slice(0, 8))):
        if wanted:
            part = np.zeros_like(mask)
            part[:, columns] = mask[:, columns]
            xrays.write(part, f"MontgomerySet/ManualMask/{half}/{stem}.png", mode="1")


def test_nlm_layout(xrays, folders):
    add_nlm(xrays, 1)
    xrays.write(xrays.pixels(2), "ChinaSet_AllFiles/CXR_png/CHNCXR_0002_0.png")
    xrays.write(xrays.mask(2), "ChinaSet_AllFiles/mask/CHNCXR_0002_0_mask.png")
    report = convert(xrays)
    assert [case.status for case in report.cases] == ["converted"] * 2
    assert np.array_equal(stored(folders, "labelsTr/MCUCXR_0001_1.png"), xrays.mask(1) // 255)
    assert np.array_equal(stored(folders, "labelsTr/CHNCXR_0002_0.png"), xrays.mask(2) // 255)


def test_dataset_json(xrays, folders):
    xrays.add_kaggle(1)
    convert(xrays)
    content = json.loads((folders.raw / DATASET / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "X-ray"}
    assert content["labels"] == {"background": 0, "lung": 1}
    assert (content["numTraining"], content["file_ending"]) == (1, ".png")


def test_split_is_stratified(xrays, folders):
    xrays.add_kaggle(*range(20))
    xrays.add_kaggle(*range(20, 30), source="CHN")
    split = convert(xrays, split=(7, 1, 2)).split
    counts = {part: [sum(c.startswith(s) for c in cases) for s in ("MCU", "CHN")] for part, cases in split.items()}
    assert counts == {"train": [14, 7], "val": [2, 1], "test": [4, 2]}
    assert json.loads((folders.preprocessed / DATASET / "splits_final.json").read_text())[0]["val"] == split["val"]


def test_one_set_alone(xrays, folders):
    xrays.add_kaggle(1, 2)
    xrays.add_kaggle(3, source="CHN")
    xrays.add_kaggle(4, source="XYZ")
    (xrays.folder / "masks" / "CHNCXR_0009_0_mask.png").write_bytes(b"a mask without an image")
    report = convert(xrays, only="montgomery")
    assert [case.case for case in report.cases] == ["MCUCXR_0001_0", "MCUCXR_0002_0"]
    assert names(folders, "labelsTr") == ["MCUCXR_0001_0.png", "MCUCXR_0002_0.png"]
    content = json.loads((folders.raw / DATASET / "dataset.json").read_text())
    assert content["description"].endswith("Montgomery County set") and "Shenzhen" not in content["description"]


def test_a_set_that_is_not_there(xrays, folders, capsys):
    xrays.add_kaggle(1)
    assert main([str(xrays.folder), "--only", "shenzhen", "--split", "none", "--workers", "1"]) == 1
    assert "shenzhen alone, whose images begin with CHN" in capsys.readouterr().err
    with pytest.raises(ConversionError, match="no set 'Montgomery'; expected montgomery or shenzhen"):
        convert(xrays, only="Montgomery")
    assert folders.everything() == []


def test_16_bits_keep_their_precision(xrays, folders):
    xrays.add_kaggle(1)
    deep = xrays.pixels(2, np.uint16)
    xrays.write(deep, "CXR_png/MCUCXR_0002_0.png")
    xrays.write(xrays.mask(2), "masks/MCUCXR_0002_0.png")
    convert(xrays)
    assert np.array_equal(stored(folders, "imagesTr/MCUCXR_0002_0_0000.png"), deep)
    assert stored(folders, "imagesTr/MCUCXR_0001_0_0000.png").dtype == np.uint8


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_gray_in_other_modes_becomes_one_channel(xrays, folders, mode):
    xrays.add_kaggle(1)
    xrays.write(xrays.pixels(1), "CXR_png/MCUCXR_0001_0.png", mode=mode)
    assert case_of(convert(xrays), "MCUCXR_0001_0").status == "converted"
    assert np.array_equal(stored(folders, "imagesTr/MCUCXR_0001_0_0000.png"), xrays.pixels(1))


def test_odd_images_are_reported(xrays, folders):
    xrays.add_kaggle(1, 2, 3)
    xrays.write(np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8), "CXR_png/MCUCXR_0001_0.png")
    xrays.write(np.full((12, 16), 7, np.uint8), "CXR_png/MCUCXR_0002_0.png")
    xrays.write(np.zeros((12, 16), np.uint8), "masks/MCUCXR_0003_0.png")
    report = convert(xrays)
    assert "is coloured" in case_of(report, "MCUCXR_0001_0").repairs[0]
    assert case_of(report, "MCUCXR_0002_0").notes == ["MCUCXR_0002_0.png is constant (7)"]
    assert case_of(report, "MCUCXR_0003_0").notes == ["MCUCXR_0003_0.png in masks is empty"]
    assert len(names(folders, "imagesTr")) == 3


def truncate(xrays):
    file = xrays.folder / "CXR_png/MCUCXR_0001_0.png"
    file.write_bytes(file.read_bytes()[:100])


BAD_INPUTS = {
    "mask without an image": lambda xrays: (xrays.folder / "CXR_png/MCUCXR_0001_0.png").unlink(),
    "2 files for one image": lambda xrays: xrays.write(xrays.pixels(1), "again/CXR_png/MCUCXR_0001_0.png"),
    "2 files for one mask": lambda xrays: xrays.write(xrays.mask(1), "masks/MCUCXR_0001_0_mask.png"),
    "a whole mask and a left half": lambda xrays: xrays.write(xrays.mask(1), "leftMask/MCUCXR_0001_0.png"),
    "cannot be read as PNG": truncate,
    "is empty": lambda xrays: (xrays.folder / "masks/MCUCXR_0001_0.png").write_bytes(b""),
    "image (12, 16), mask (16, 12)": lambda xrays: xrays.write(xrays.mask(1).T, "masks/MCUCXR_0001_0.png"),
    "a mask is gray": lambda xrays: xrays.write(
        np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8), "masks/MCUCXR_0001_0.png"
    ),
    "reaches half of the range": lambda xrays: xrays.write(xrays.mask(1) // 100, "masks/MCUCXR_0001_0.png"),
}


@pytest.mark.parametrize("reason", BAD_INPUTS)
def test_a_bad_case_is_refused_and_the_rest_goes_on(xrays, folders, reason):
    xrays.add_kaggle(1, 2)
    BAD_INPUTS[reason](xrays)
    report = convert(xrays)
    assert case_of(report, "MCUCXR_0001_0").status == "refused"
    assert reason in case_of(report, "MCUCXR_0001_0").reason
    assert names(folders, "imagesTr") == ["MCUCXR_0002_0_0000.png"]
    assert names(folders, "labelsTr") == ["MCUCXR_0002_0.png"]


def test_names_that_differ_in_case_alone_are_refused(xrays, folders):
    """On Windows and macOS one would be written over the other."""
    xrays.add_kaggle(1, 2)
    for folder, mask in (("CXR_png", False), ("masks", True)):
        pixels = xrays.mask(3) if mask else xrays.pixels(3)
        xrays.write(pixels, f"other/{folder}/mcucxr_0001_0.png")
    report = convert(xrays)
    for name, other in (("MCUCXR_0001_0", "mcucxr_0001_0"), ("mcucxr_0001_0", "MCUCXR_0001_0")):
        refused = case_of(report, name)
        assert refused.status == "refused" and refused.reason.startswith(
            f"{other} differs from it only in upper and lower"
        )
    assert names(folders, "imagesTr") == ["MCUCXR_0002_0_0000.png"]


@pytest.mark.parametrize(("halves", "missing"), [({"right": False}, "right"), ({"left": False}, "left")])
def test_a_missing_half_is_refused_by_name(xrays, folders, halves, missing):
    add_nlm(xrays, 1, **halves)
    add_nlm(xrays, 2)
    assert case_of(convert(xrays), "MCUCXR_0001_1").reason == f"the {missing} half of its mask is missing"


def test_halves_of_different_size_are_refused(xrays, folders):
    add_nlm(xrays, 1)
    add_nlm(xrays, 2)
    xrays.write(xrays.mask(1).T, "MontgomerySet/ManualMask/leftMask/MCUCXR_0001_1.png")
    assert "halves of the mask differ in size" in case_of(convert(xrays), "MCUCXR_0001_1").reason


def test_resize_brings_image_and_mask_together(xrays, folders):
    xrays.add_kaggle(1, 2)
    xrays.write(np.kron(xrays.mask(1), np.ones((2, 2), np.uint8)), "masks/MCUCXR_0001_0.png")
    report = convert(xrays, resize=(24, 32))
    assert "differed in size before" in case_of(report, "MCUCXR_0001_0").repairs[0]
    assert case_of(report, "MCUCXR_0002_0").status == "converted"
    for number in (1, 2):
        assert stored(folders, f"imagesTr/MCUCXR_000{number}_0_0000.png").shape == (24, 32)
        expected = np.kron(xrays.mask(number) // 255, np.ones((2, 2), np.uint8))
        assert np.array_equal(stored(folders, f"labelsTr/MCUCXR_000{number}_0.png"), expected)


@pytest.mark.parametrize("change", [np.transpose, lambda mask: mask[2:], lambda mask: np.kron(mask, np.ones((1, 2)))])
def test_resize_does_not_squash_a_mask_that_is_turned_or_cropped(xrays, folders, change):
    xrays.add_kaggle(1, 2)
    xrays.write(change(xrays.mask(1)).astype(np.uint8), "masks/MCUCXR_0001_0.png")
    report = convert(xrays, resize=(24, 32))
    assert "turned, cropped or another's" in case_of(report, "MCUCXR_0001_0").reason


def test_resize_keeps_16_bits(xrays, folders):
    xrays.add_kaggle(1)
    xrays.write(np.full((12, 16), 40000, np.uint16), "CXR_png/MCUCXR_0001_0.png")
    convert(xrays, resize=(5, 7))
    assert np.array_equal(stored(folders, "imagesTr/MCUCXR_0001_0_0000.png"), np.full((5, 7), 40000, np.uint16))


def test_links_only_where_nothing_changes(xrays, folders):
    xrays.add_kaggle(1, 2)
    xrays.write(xrays.mask(1) // 255, "masks/MCUCXR_0001_0.png")
    xrays.write(xrays.pixels(2), "CXR_png/MCUCXR_0002_0.png", mode="RGB")
    convert(xrays, link=True)
    linked = {path.name: path.is_symlink() for path in (folders.raw / DATASET).glob("*Tr/*")}
    assert linked == {
        "MCUCXR_0001_0_0000.png": True,
        "MCUCXR_0001_0.png": True,
        "MCUCXR_0002_0_0000.png": False,
        "MCUCXR_0002_0.png": False,
    }


def test_images_without_any_mask_are_no_data_set(xrays, folders):
    xrays.write(xrays.pixels(1), "CXR_png/MCUCXR_0001_0.png")
    with pytest.raises(ConversionError, match="no image with a label.*CXR_png"):
        convert(xrays)
    assert folders.everything() == []


def test_main(xrays, folders, capsys):
    xrays.add_kaggle(*range(5))
    assert main([str(xrays.folder), "--resize", "8", "9", "--workers", "1"]) == 0
    assert "nnUNetv2_train 802 2d 0" in capsys.readouterr().out
    assert stored(folders, f"imagesTr/{names(folders, 'imagesTr')[0]}").shape == (8, 9)

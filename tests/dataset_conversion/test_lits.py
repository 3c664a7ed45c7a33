"""LiTS: layouts, repairs, refusals, options."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_lightm.dataset_conversion._convert import ConversionOptions
from nnunetv2_lightm.dataset_conversion._errors import ConversionError
from nnunetv2_lightm.dataset_conversion.Dataset801_LiTS import convert_lits

DATASET = "Dataset801_LiTS"


def convert(lits, **options):
    return convert_lits(lits.folder, ConversionOptions(**{"split": None, "workers": 1, **options}))


def case_of(report, case):
    return next(entry for entry in report.cases if entry.case == case)


def stored(folders, name: str) -> sitk.Image:
    return sitk.ReadImage(str(folders.raw / DATASET / name))


def names(folders, folder: str) -> list[str]:
    return sorted(path.name for path in (folders.raw / DATASET / folder).iterdir())


def assert_equal(volume: sitk.Image, expected: sitk.Image) -> None:
    assert np.array_equal(sitk.GetArrayFromImage(volume), sitk.GetArrayFromImage(expected))
    assert volume.GetSpacing() == pytest.approx(expected.GetSpacing())
    assert volume.GetOrigin() == pytest.approx(expected.GetOrigin())
    assert volume.GetDirection() == pytest.approx(expected.GetDirection())


def test_challenge_layout(lits, folders):
    lits.add(0, 12, folder="Training Batch 1", ending=".nii")
    lits.add(101, folder="deep/Training Batch 2")
    lits.write(lits.image(5), "Test/test-volume-12.nii")
    report = convert(lits)
    assert [(case.case, case.status, case.part) for case in report.cases] == [
        ("LiTS_000", "converted", "train"),
        ("LiTS_012", "converted", "train"),
        ("LiTS_101", "converted", "train"),
        ("LiTS_test_012", "converted", "unlabelled"),
    ]
    assert names(folders, "imagesTr") == [f"LiTS_{n}_0000.nii.gz" for n in ("000", "012", "101")]
    assert names(folders, "labelsTr") == [f"LiTS_{n}.nii.gz" for n in ("000", "012", "101")]
    assert names(folders, "imagesTs") == ["LiTS_test_012_0000.nii.gz"]
    assert not (folders.raw / DATASET / "labelsTs").exists()
    for number in (0, 12, 101):
        assert_equal(stored(folders, f"imagesTr/LiTS_{number:03d}_0000.nii.gz"), lits.image(number))
        assert_equal(stored(folders, f"labelsTr/LiTS_{number:03d}.nii.gz"), lits.label(number))
    assert_equal(stored(folders, "imagesTs/LiTS_test_012_0000.nii.gz"), lits.image(5))


def test_msd_layout(lits, folders):
    for number in (1, 30):
        lits.write(lits.image(number), f"Task03_Liver/imagesTr/liver_{number}.nii.gz")
        lits.write(lits.label(number), f"Task03_Liver/labelsTr/liver_{number}.nii.gz")
        (lits.folder / f"Task03_Liver/imagesTr/._liver_{number}.nii.gz").write_bytes(b"macOS")
    lits.write(lits.image(131), "Task03_Liver/imagesTs/liver_131.nii.gz")
    (lits.folder / "Task03_Liver/dataset.json").write_text("{}")
    report = convert(lits)
    assert [case.case for case in report.cases] == ["LiTS_001", "LiTS_030", "LiTS_test_131"]
    assert not report.with_status("refused")
    assert report.ignored_files == ["Task03_Liver/dataset.json"]
    assert_equal(stored(folders, "labelsTr/LiTS_030.nii.gz"), lits.label(30))


def test_dataset_json(lits, folders):
    lits.add(1, 2)
    convert(lits)
    content = json.loads((folders.raw / DATASET / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "CT"}
    assert content["labels"] == {"background": 0, "liver": 1, "tumor": 2}
    assert content["numTraining"] == 2
    assert content["file_ending"] == ".nii.gz"
    assert not folders.preprocessed.joinpath(DATASET).exists()


def test_split_is_put_where_nnunet_reads_it(lits, folders):
    lits.add(*range(10))
    lits.write(lits.image(1), "test-volume-1.nii.gz")
    report = convert(lits, split=(7, 1, 2), seed=3)
    split = json.loads((folders.preprocessed / DATASET / "splits_final.json").read_text())
    assert split == [{"train": report.split["train"], "val": report.split["val"]}]
    assert (len(split[0]["train"]), len(split[0]["val"])) == (7, 1)
    train_and_val = sorted(split[0]["train"] + split[0]["val"])
    assert names(folders, "imagesTr") == [f"{case}_0000.nii.gz" for case in train_and_val]
    assert names(folders, "labelsTr") == [f"{case}.nii.gz" for case in train_and_val]
    assert names(folders, "labelsTs") == [f"{case}.nii.gz" for case in report.split["test"]]
    assert names(folders, "imagesTs") == [f"{case}_0000.nii.gz" for case in [*report.split["test"], "LiTS_test_001"]]
    assert json.loads((folders.raw / DATASET / "dataset.json").read_text())["numTraining"] == 8
    for case in report.split["test"]:
        assert_equal(stored(folders, f"labelsTs/{case}.nii.gz"), lits.label(int(case[-3:])))


def test_rounded_geometry_is_repaired(lits, folders):
    lits.add(1, 2)
    label = lits.label(2)
    label.SetSpacing((0.701, 0.7, 2.5))
    label.SetOrigin((-100.5, 30.26, -700.0))
    lits.write(label, "segmentation-2.nii.gz")
    report = convert(lits)
    assert case_of(report, "LiTS_002").status == "repaired"
    assert "image's geometry" in case_of(report, "LiTS_002").repairs[0]
    assert_equal(stored(folders, "labelsTr/LiTS_002.nii.gz"), lits.label(2))
    assert case_of(report, "LiTS_001").status == "converted"


def test_a_float_label_and_an_odd_image_are_repaired(lits, folders):
    lits.write(lits.image(1, dtype=np.float64), "volume-1.nii.gz")
    lits.write(lits.label(1, dtype=np.float32), "segmentation-1.nii.gz")
    report = convert(lits)
    assert case_of(report, "LiTS_001").repairs == [
        "volume-1.nii.gz: float64 stored as int16",
        "segmentation-1.nii.gz: float32 stored as uint8",
    ]
    assert stored(folders, "imagesTr/LiTS_001_0000.nii.gz").GetPixelID() == sitk.sitkInt16
    assert stored(folders, "labelsTr/LiTS_001.nii.gz").GetPixelID() == sitk.sitkUInt8
    assert_equal(stored(folders, "imagesTr/LiTS_001_0000.nii.gz"), lits.image(1))
    assert_equal(stored(folders, "labelsTr/LiTS_001.nii.gz"), lits.label(1))


def test_a_label_without_liver_is_converted_and_noted(lits, folders):
    lits.add(1)
    lits.write(lits.as_volume(np.zeros((6, 8, 10), np.uint8)), "segmentation-1.nii.gz")
    report = convert(lits)
    assert case_of(report, "LiTS_001").status == "converted"
    assert case_of(report, "LiTS_001").notes == ["segmentation-1.nii.gz has no liver"]
    assert "LiTS_001: segmentation-1.nii.gz has no liver" in report.summary()


def truncate(lits):
    file = lits.folder / "volume-1.nii.gz"
    file.write_bytes(file.read_bytes()[:-50])


def flip(lits):
    label = lits.label(1)
    label.SetDirection((-1, 0, 0, 0, 1, 0, 0, 0, 1))
    lits.write(label, "segmentation-1.nii.gz")


BAD_INPUTS = {
    "image without a label": lambda lits: (lits.folder / "segmentation-1.nii.gz").unlink(),
    "label without an image": lambda lits: (lits.folder / "volume-1.nii.gz").unlink(),
    "2 files for one volume": lambda lits: lits.write(lits.image(1), "other/volume-01.nii"),
    "2 files for one segmentation": lambda lits: lits.write(lits.label(1), "segmentation-1.nii"),
    "volume-1.nii.gz is truncated": truncate,
    "volume-1.nii.gz is empty": lambda lits: (lits.folder / "volume-1.nii.gz").write_bytes(b""),
    "segmentation-1.nii.gz is empty": lambda lits: (lits.folder / "segmentation-1.nii.gz").write_bytes(b""),
    "more than rounding": flip,
    "differ in shape": lambda lits: lits.write(lits.label(1)[:, :, :-1], "segmentation-1.nii.gz"),
    "has the values 3, 5; allowed": lambda lits: lits.write(
        lits.as_volume(np.arange(480).reshape(6, 8, 10).astype(np.int16) % 2 * 2 + 3), "segmentation-1.nii.gz"
    ),
    "not integers, such as": lambda lits: lits.write(
        lits.as_volume(np.full((6, 8, 10), 0.5, np.float32)), "segmentation-1.nii.gz"
    ),
    "480 NaN or infinite": lambda lits: lits.write(
        lits.as_volume(np.full((6, 8, 10), np.nan, np.float32)), "volume-1.nii.gz"
    ),
}


@pytest.mark.parametrize("reason", BAD_INPUTS)
def test_a_bad_case_is_refused_and_the_rest_goes_on(lits, folders, reason):
    lits.add(1, 2)
    BAD_INPUTS[reason](lits)
    report = convert(lits)
    refused = case_of(report, "LiTS_001")
    assert refused.status == "refused"
    assert reason in refused.reason
    assert refused.part is None
    assert refused.files
    assert all((lits.folder / file).exists() for file in refused.files)
    assert f"{refused.case} ({', '.join(refused.files)}): {refused.reason}" in report.summary()
    assert names(folders, "imagesTr") == ["LiTS_002_0000.nii.gz"]
    assert names(folders, "labelsTr") == ["LiTS_002.nii.gz"]


@pytest.mark.parametrize("reason", BAD_INPUTS)
def test_strict_writes_nothing(lits, folders, reason):
    lits.add(1, 2)
    BAD_INPUTS[reason](lits)
    with pytest.raises(ConversionError, match="1 case.s. refused.*--strict") as error:
        convert(lits, strict=True)
    assert reason in str(error.value)
    assert folders.everything() == []


def test_strict_converts_what_is_sound(lits, folders):
    lits.add(1, 2)
    assert len(convert(lits, strict=True).with_status("converted")) == 2
    assert len(names(folders, "imagesTr")) == 2


def test_nothing_converted_is_an_error(lits, folders):
    lits.add(1)
    truncate(lits)
    with pytest.raises(ConversionError, match=r"no labelled case .* could be converted.\nRefused \(1\):\n  LiTS_001"):
        convert(lits)
    assert folders.everything() == []


def test_report_is_written(lits, folders):
    lits.add(*range(5))
    lits.write(lits.image(9), "volume-9.nii.gz")
    (lits.folder / "readme.txt").write_text("hello")
    report = convert(lits, split=(3, 1, 1))
    content = json.loads((folders.raw / DATASET / "conversion_report.json").read_text())
    assert content == report.to_json()
    assert content["counts"] == {"converted": 5, "repaired": 0, "refused": 1}
    assert content["split"] == report.split
    assert content["ignored_files"] == ["readme.txt"]
    assert content["cases"][5] == {
        "case": "LiTS_009",
        "status": "refused",
        "files": ["volume-9.nii.gz"],
        "reason": "image without a label",
        "repairs": [],
        "notes": [],
        "part": None,
    }


def test_resize(lits, folders):
    lits.add(1)
    convert(lits, resize=(3, 16, 5))
    image, label = stored(folders, "imagesTr/LiTS_001_0000.nii.gz"), stored(folders, "labelsTr/LiTS_001.nii.gz")
    assert image.GetSize() == label.GetSize() == (5, 16, 3)
    assert image.GetSpacing() == label.GetSpacing() == pytest.approx((1.4, 0.35, 5.0))
    assert image.GetOrigin() == label.GetOrigin()
    assert image.GetPixelID() == sitk.sitkInt16
    assert set(np.unique(sitk.GetArrayFromImage(label))) <= {0, 1, 2}
    middle = sitk.GetArrayFromImage(lits.image(1)).astype(float)
    assert sitk.GetArrayFromImage(image).mean() == pytest.approx(middle.mean(), abs=60)


def test_links_only_where_nothing_changes(lits, folders):
    lits.add(1)
    lits.add(2, ending=".nii")
    lits.add(3)
    lits.write(lits.label(3, dtype=np.float32), "segmentation-3.nii.gz")
    before = {path: path.read_bytes() for path in lits.folder.iterdir()}
    convert(lits, link=True)
    linked = {path.name: path.is_symlink() for path in (folders.raw / DATASET).glob("*Tr/*")}
    assert linked == {
        f"LiTS_00{number}{ending}.nii.gz": number == 1 for number in (1, 2, 3) for ending in ("", "_0000")
    }
    assert_equal(stored(folders, "imagesTr/LiTS_001_0000.nii.gz"), lits.image(1))
    assert {path: path.read_bytes() for path in lits.folder.iterdir()} == before


def test_a_copy_is_the_files_own_bytes(lits, folders):
    lits.add(1)
    convert(lits)
    copy = folders.raw / DATASET / "imagesTr/LiTS_001_0000.nii.gz"
    assert not copy.is_symlink()
    assert copy.read_bytes() == (lits.folder / "volume-1.nii.gz").read_bytes()


def test_dry_run_reports_the_same_and_writes_nothing(lits, folders):
    lits.add(*range(8))
    lits.write(lits.label(2, dtype=np.float32), "segmentation-2.nii.gz")
    truncate(lits)
    dry = convert(lits, split=(7, 1, 2), dry_run=True)
    assert folders.everything() == []
    assert not folders.raw.parent.exists()
    real = convert(lits, split=(7, 1, 2))
    assert dry.summary() == real.summary()
    assert dry.to_json() == real.to_json()


def test_workers_find_the_same_as_one_process(lits, folders):
    lits.add(*range(6))
    truncate(lits)
    one = convert(lits, split=(3, 1, 1))
    assert convert(lits, split=(3, 1, 1), workers=2, overwrite=True).to_json() == one.to_json()


def test_links_to_folders_are_followed_once(lits, folders, tmp_path):
    lits.add(1)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "lits").symlink_to(lits.folder)
    (lits.folder / "loop").symlink_to(lits.folder)
    report = convert_lits(tmp_path / "linked", ConversionOptions(split=None, workers=1))
    assert [case.status for case in report.cases] == ["converted"]

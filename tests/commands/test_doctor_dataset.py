"""commands/doctor/dataset.py: what the doctor says about a data set, with every fault made for real."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from nnunetv2_lightm.commands.doctor import command as doctor
from nnunetv2_lightm.commands.doctor import fresh_process
from nnunetv2_lightm.commands.doctor.dataset import check_dataset
from nnunetv2_lightm.commands.doctor.finding import Finding, Status

pytestmark = pytest.mark.usefixtures("healthy_environment")

NAME = "Dataset801_LiTS"
SHAPE = (6, 5, 4)
AFFINE = np.array([[0.7, 0, 0, -50], [0, 0.7, 0, 20], [0, 0, 1.6, -300], [0, 0, 0, 1]])
AGAIN = "nnUNetv2_plan_and_preprocess -d 801 --verify_dataset_integrity"
FULLRES = {
    "data_identifier": "nnUNetPlans_3d_fullres",
    "patch_size": [8, 16, 16],
    "batch_size": 2,
    "batch_dice": True,
    "architecture": {"arch_kwargs": {"strides": [[1, 1, 1]]}},
}
PLANS = {
    "dataset_name": NAME,
    "plans_name": "nnUNetPlans",
    "configurations": {"3d_fullres": FULLRES, "3d_large": {"inherits_from": "3d_fullres", "batch_size": 4}},
}
DATASET_JSON = {"labels": {"background": 0, "liver": 1}, "channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}


class Dataset:
    """Two cases, raw and preprocessed, and a checkpoint."""

    def __init__(self, root: Path) -> None:
        self.raw, self.preprocessed, self.results = (
            root / variable / NAME for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
        )
        self.data = self.preprocessed / "nnUNetPlans_3d_fullres"
        self.fold = self.results / "nnUNetTrainerLightMUNet__nnUNetPlans__3d_fullres" / "fold_0"
        for folder in (self.raw / "imagesTr", self.raw / "labelsTr", self.data, self.fold):
            folder.mkdir(parents=True)
        (self.preprocessed / "gt_segmentations").mkdir()
        for case in ("a_1", "b_2"):
            self.write_volume(f"imagesTr/{case}_0000", np.random.default_rng(0).normal(size=SHAPE).astype(np.float32))
            self.write_volume(f"labelsTr/{case}", np.ones(SHAPE, np.uint8))
            (self.preprocessed / "gt_segmentations" / f"{case}.nii.gz").touch()
            for ending in (".b2nd", "_seg.b2nd", ".pkl"):
                (self.data / (case + ending)).touch()
        self.write(self.raw / "dataset.json", DATASET_JSON)
        self.write(self.preprocessed / "dataset.json", DATASET_JSON)
        self.write(self.preprocessed / "dataset_fingerprint.json", {})
        self.write(self.preprocessed / "nnUNetPlans.json", PLANS)
        self.write(self.preprocessed / "splits_final.json", [{"train": ["a_1"], "val": ["b_2"]}])
        torch.save({"network_weights": {"a": torch.zeros(500)}}, self.fold / "checkpoint_final.pth")

    def write_volume(self, name: str, values: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
        """Below the raw folder; returns the file."""
        path = self.raw / f"{name}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(values, affine), path)
        return path

    def write(self, path: Path, content: object) -> None:
        path.write_text(json.dumps(content))


@pytest.fixture
def made(tmp_path) -> Dataset:
    return Dataset(tmp_path)


def failure(name_or_id: str = "801") -> Finding:
    """The only finding that keeps a training from starting."""
    (finding,) = [found for found in check_dataset(name_or_id, "nnUNetPlans") if found.status is Status.FAIL]
    return finding


@pytest.mark.parametrize("name_or_id", ["801", NAME])
def test_a_sound_data_set(made, name_or_id):
    findings = check_dataset(name_or_id, "nnUNetPlans")
    assert {finding.status for finding in findings} == {Status.OK}
    assert [finding.message for finding in findings] == [
        "2 cases",
        "images and labels of 2 cases are whole, finite and on one grid",
        "2 cases, patch [8, 16, 16], batch size 2",
        "2 cases, patch [8, 16, 16], batch size 4",
        "1 checkpoints, undamaged",
    ]


@pytest.mark.parametrize("name_or_id", ["802", "Dataset801_Other"])
def test_a_data_set_that_is_nowhere(made, name_or_id):
    assert failure(name_or_id).message.startswith("not found: nnUNet_raw=")


def test_one_id_with_two_names(made):
    (made.results.parent / "Dataset801_Other").mkdir()
    assert "have this id, and nnU-Net then accepts none of them: Dataset801_LiTS, Dataset801_Other" in failure().message


@pytest.mark.parametrize("name", ["nnUNetPlans.json", "dataset.json", "dataset_fingerprint.json"])
def test_missing_plans(made, name):
    (made.preprocessed / name).unlink()
    finding = failure()
    assert finding.message == f"{made.preprocessed / name} is missing"
    assert finding.remedy == (AGAIN,)


def test_other_plans_by_their_name(made):
    (finding,) = [found for found in check_dataset("801", "nnUNetResEncUNetMPlans") if found.status is Status.FAIL]
    assert "nnUNetResEncUNetMPlans.json is missing" in finding.message


def test_plans_that_are_no_json(made):
    (made.preprocessed / "nnUNetPlans.json").write_text("{")
    assert "nnUNetPlans.json cannot be read: Expecting property name" in failure().message


@pytest.mark.parametrize(
    ("plans", "said"),
    [
        ({"plans_per_stage": {}}, "plans of nnU-Net v1"),
        ({"dataset_name": NAME, "plans_name": "x", "configurations": {"2d": {}}}, "the configuration lacks"),
    ],
)
def test_plans_of_another_version(made, plans, said):
    made.write(made.preprocessed / "nnUNetPlans.json", plans)
    finding = failure()
    assert said in finding.message
    assert finding.remedy == (AGAIN,)


def test_data_that_are_not_preprocessed(made):
    made.write(made.preprocessed / "nnUNetPlans.json", PLANS | {"configurations": {"2d": FULLRES | {
        "data_identifier": "nnUNetPlans_2d"}}})  # fmt: skip
    (finding,) = [found for found in check_dataset("801", "nnUNetPlans") if found.status is Status.NOTE]
    assert finding.message == f"planned, but not preprocessed ({made.preprocessed / 'nnUNetPlans_2d'})"
    assert finding.remedy == (f"{AGAIN} -c 2d",)


@pytest.mark.parametrize(
    "lost",
    [
        "nnUNetPlans_3d_fullres/a_1_seg.b2nd",
        "nnUNetPlans_3d_fullres/b_2.pkl",
        "gt_segmentations/b_2.nii.gz",
    ],
)
def test_a_missing_file_of_a_case(made, lost):
    made.write(made.preprocessed / "nnUNetPlans.json", PLANS | {"configurations": {"3d_fullres": FULLRES}})
    (made.preprocessed / lost).unlink()
    assert failure().message == f"1 files are missing: {made.preprocessed / lost}"


def test_a_split_of_other_cases(made):
    made.write(made.preprocessed / "nnUNetPlans.json", PLANS | {"configurations": {"3d_fullres": FULLRES}})
    made.write(made.preprocessed / "splits_final.json", [{"train": ["z"], "val": ["b_2"]}])
    finding = failure()
    assert f"4 files are missing: {made.data / 'z.b2nd'}" in finding.message
    assert "splits_final.json" in finding.remedy[1]


def test_a_missing_label_and_a_missing_image(made):
    (made.raw / "labelsTr" / "a_1.nii.gz").unlink()
    (made.raw / "imagesTr" / "b_2_0000.nii.gz").unlink()
    findings = check_dataset("801", "nnUNetPlans")[:2]
    assert [finding.status for finding in findings] == [Status.FAIL, Status.NOTE]
    assert findings[0].message == f"1 images of imagesTr have no label: {made.raw / 'labelsTr' / 'a_1.nii.gz'}"
    assert findings[1].message == "1 labels have no image: b_2"


@pytest.mark.parametrize("content", [None, {"labels": {}}])
def test_a_raw_data_set_without_a_sound_dataset_json(made, content):
    (made.raw / "dataset.json").unlink() if content is None else made.write(made.raw / "dataset.json", content)
    assert ("is missing" if content is None else "it lacks file_ending, channel_names") in failure().message


def test_a_corrupt_checkpoint_is_named(made):
    """It keeps no training from starting, but prediction and --c from reading it."""
    file = made.fold / "checkpoint_final.pth"
    file.write_bytes(file.read_bytes()[:-100])
    finding = check_dataset("801", "nnUNetPlans")[-1]
    assert finding.status is Status.NOTE
    assert finding.message == f"1 of 1 checkpoints are cut off or damaged: {file}"


def test_the_command(made, monkeypatch, capsys):
    """Its findings count like all others; those on the machine are left out here, they take seconds."""
    monkeypatch.setattr(doctor, "IN_A_FRESH_PROCESS", ())
    monkeypatch.setattr(fresh_process, "examine", dict)
    assert doctor.main(["--dataset", "801"]) == 0
    assert "2 cases, patch [8, 16, 16]" in capsys.readouterr().out
    (made.preprocessed / "nnUNetPlans.json").unlink()
    assert doctor.main(["--dataset", "801"]) == 1
    assert f"      {AGAIN}" in capsys.readouterr().out.splitlines()

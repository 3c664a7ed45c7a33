"""A planned data set of a few bytes, and stand-ins for the commands that would take minutes on it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from .stand_ins import Commands, save_square

DATASET = "Dataset950_Squares"
CASES, TEST_CASES = ("a", "b", "c"), ("x", "y")


@pytest.fixture
def nnunet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """nnU-Net's three folders, with a data set that is planned, "preprocessed" and has a test split."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
        (tmp_path / name / DATASET).mkdir(parents=True)
    raw, preprocessed = tmp_path / "nnUNet_raw" / DATASET, tmp_path / "nnUNet_preprocessed" / DATASET
    labels = {"background": 0, "square": 1}
    dataset_json = {"channel_names": {"0": "gray"}, "labels": labels, "numTraining": 3, "file_ending": ".png"}
    sizes = {"patch_size": [32, 32], "batch_size": 2, "spacing": [1, 1]}
    configuration = {"data_identifier": "nnUNetPlans_2d", "architecture": {}, **sizes}
    plans = {"dataset_name": DATASET, "plans_name": "nnUNetPlans", "configurations": {"2d": configuration}}
    (preprocessed / "nnUNetPlans.json").write_text(json.dumps(plans))
    (preprocessed / "dataset.json").write_text(json.dumps(dataset_json))
    (preprocessed / "splits_final.json").write_text(json.dumps([{"train": ["a", "b"], "val": ["c"]}] * 2))
    for case in CASES:
        touch(preprocessed / "nnUNetPlans_2d", *(f"{case}{end}" for end in (".b2nd", "_seg.b2nd", ".pkl")))
        save_square(preprocessed / "gt_segmentations" / f"{case}.png", 8)
    for case in TEST_CASES:
        save_square(raw / "imagesTs" / f"{case}_0000.png", 8)
        save_square(raw / "labelsTs" / f"{case}.png", 8)
    return tmp_path


@pytest.fixture
def commands(nnunet: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Stand-ins for training, prediction, complexity, calibration and report; evaluations are real."""
    stand_ins = Commands(nnunet)
    stand_ins.install(monkeypatch.setattr)
    report = SimpleNamespace(write_report=stand_ins.report)
    monkeypatch.setitem(sys.modules, "nnunetv2_lightm.benchmark.report.document", report)
    return stand_ins


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()

"""Settings that are refused before any work, and the messages."""

from __future__ import annotations

import json

import pytest

from nnunetv2_lightm.benchmark.held_out import has_test_split
from nnunetv2_lightm.benchmark.settings import SettingsError, check_data, check_trainers, parse_budget, parse_wall_clock

from .conftest import DATASET
from .stand_ins import save_square


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("60min", 3600), ("2h", 7200), ("1.5h", 5400)])
def test_wall_clock(text, seconds):
    assert parse_wall_clock(text) == seconds


@pytest.mark.parametrize("text", ["90", "60m", "0s", "-1h", "1h30min", "soon"])
def test_other_wall_clock_is_refused(text):
    with pytest.raises(SettingsError, match="90s, 60min or 2h"):
        parse_wall_clock(text)


def test_budget():
    assert parse_budget("20epochs_100iters") == parse_budget("_20epochs_100iters") == "20epochs_100iters"
    assert parse_budget("1epoch") == "1epoch"
    for text in ("20", "0epochs", "20epochs_0iters", "20epochs_seed1"):
        with pytest.raises(SettingsError, match="expected e.g. 20epochs_100iters"):
            parse_budget(text)


def test_trainers():
    check_trainers(["nnUNetTrainer", "nnUNetTrainerLightMUNet", "nnUNetTrainerUMambaBot"])
    with pytest.raises(SettingsError, match="did you mean 'nnUNetTrainerLightMUNet'"):
        check_trainers(["nnUNetTrainerLightMUnet"])
    with pytest.raises(SettingsError, match="budget, which has its own option; give 'nnUNetTrainerLightMUNet'"):
        check_trainers(["nnUNetTrainerLightMUNet_20epochs"])
    with pytest.raises(SettingsError, match="There are: nnUNetTrainer, nnUNetTrainerLightMUNet, "):
        check_trainers(["xyz"])
    check_trainers(["nnUNetTrainerNoMirroring"])
    with pytest.raises(SettingsError, match="more than once: nnUNetTrainer$"):
        check_trainers(["nnUNetTrainer", "nnUNetTrainer"])


def test_a_trainer_of_the_user_can_be_compared(monkeypatch, tmp_path):
    base = "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer"
    (tmp_path / "mine.py").write_text(f"{base}\nclass nnUNetTrainerMine(nnUNetTrainer): ...")
    with pytest.raises(SettingsError, match="no trainer 'nnUNetTrainerMine'.*directories of nnUNet_extTrainer"):
        check_trainers(["nnUNetTrainerMine"])
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
    check_trainers(["nnUNetTrainerMine"])


def test_complete_data_set_is_accepted(nnunet):
    for dataset in ("950", DATASET):
        assert check_data(dataset, "2d", "nnUNetPlans", [0, 1]).dataset == DATASET


@pytest.mark.parametrize(
    ("dataset", "configuration", "plans", "expected"),
    [
        ("951", "2d", "nnUNetPlans", r"ID 951[\s\S]*nnUNetv2_plan_and_preprocess -d 951 .*-c 2d"),
        (DATASET, "2d", "Other", rf"no plans .*{DATASET}/Other.json[\s\S]*nnUNetv2_plan_and_preprocess -d 950"),
        (DATASET, "3d_fullres", "nnUNetPlans", r"nnUNetPlans.json: no configuration '3d_fullres'; there are: 2d"),
    ],
)
def test_what_is_not_planned_is_named(nnunet, dataset, configuration, plans, expected):
    with pytest.raises(SettingsError, match=expected):
        check_data(dataset, configuration, plans, [0])


def test_variable_that_is_not_set_is_named(nnunet, monkeypatch):
    monkeypatch.delenv("nnUNet_results")
    with pytest.raises(SettingsError, match="nnUNet_results is not set: export nnUNet_results="):
        check_data(DATASET, "2d", "nnUNetPlans", [0])


def test_fold_that_is_not_there(nnunet):
    for fold in (2, -1):
        with pytest.raises(SettingsError, match=rf"no fold {fold}: .*splits_final.json has 2"):
            check_data(DATASET, "2d", "nnUNetPlans", [fold])


def test_missing_file_is_named(nnunet):
    preprocessed = nnunet / "nnUNet_preprocessed" / DATASET
    (preprocessed / "nnUNetPlans_2d" / "b.pkl").unlink()
    (preprocessed / "gt_segmentations" / "c.png").unlink()
    with pytest.raises(SettingsError, match=r"2 files of fold 0 .*b\.pkl, .*c\.png. Make them: .*plan_and_preprocess"):
        check_data(DATASET, "2d", "nnUNetPlans", [0])
    for file in (preprocessed / "nnUNetPlans_2d").iterdir():
        file.unlink()
    with pytest.raises(SettingsError, match="nnUNetPlans_2d holds no preprocessed cases. Make them"):
        check_data(DATASET, "2d", "nnUNetPlans", [0])


def test_second_stage_of_a_cascade_is_refused(nnunet):
    plans_file = nnunet / "nnUNet_preprocessed" / DATASET / "nnUNetPlans.json"
    plans = json.loads(plans_file.read_text())
    plans["configurations"]["cascade"] = {"inherits_from": "2d", "previous_stage": "2d"}
    plans_file.write_text(json.dumps(plans))
    with pytest.raises(SettingsError, match="cascade continues from 2d"):
        check_data(DATASET, "cascade", "nnUNetPlans", [0])


def test_a_test_split_that_does_not_fit_together_is_named(nnunet):
    raw = nnunet / "nnUNet_raw" / DATASET
    save_square(raw / "imagesTs" / "z_0000.png", 8)
    with pytest.raises(SettingsError, match=r"no label for .*imagesTs/z_0000\.png\. Each image CASE_0000\.png .*move"):
        check_data(DATASET, "2d", "nnUNetPlans", [0])
    (raw / "imagesTs" / "z_0000.png").rename(raw / "labelsTs" / "q.png")
    with pytest.raises(SettingsError, match=r"no image for .*labelsTs/q\.png\."):
        check_data(DATASET, "2d", "nnUNetPlans", [0])
    (raw / "labelsTs" / "q.png").rename(raw / "imagesTs" / "q.png")
    with pytest.raises(SettingsError, match=r"q\.png has no channel number.*q_0000\.png"):
        check_data(DATASET, "2d", "nnUNetPlans", [0])
    (raw / "imagesTs" / "q.png").rename(raw / "imagesTs" / "note.txt")
    check_data(DATASET, "2d", "nnUNetPlans", [0])


def test_a_test_split_of_another_file_ending_is_named(nnunet):
    raw = nnunet / "nnUNet_raw" / DATASET
    for file in [*(raw / "imagesTs").iterdir(), *(raw / "labelsTs").iterdir()]:
        file.rename(file.with_suffix(".bmp"))
    with pytest.raises(SettingsError, match=r"neither .*imagesTs nor .*labelsTs holds a file ending in \.png"):
        check_data(DATASET, "2d", "nnUNetPlans", [0])


def test_what_operating_systems_leave_is_no_test_split(nnunet):
    raw = nnunet / "nnUNet_raw" / DATASET
    assert has_test_split(raw)
    for file in (raw / "labelsTs").iterdir():
        file.unlink()
    for name in (".DS_Store", "Thumbs.db"):
        (raw / "labelsTs" / name).touch()
    assert not has_test_split(raw)
    check_data(DATASET, "2d", "nnUNetPlans", [0])

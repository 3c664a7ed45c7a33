"""``python -m release.weights``: which cases get in, what is refused before any work, and that the card's numbers are
those of the evaluation. The whole of it runs in tests/end_to_end/test_weights.py."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_lightm.dataset_conversion._split import split_cases
from nnunetv2_lightm.deploy.nnunet_zip import read_entries, write_entries
from nnunetv2_lightm.evaluation.json_files import read_evaluation, to_json
from nnunetv2_lightm.evaluation.scores import Evaluation
from nnunetv2_lightm.measure.machine import machine
from nnunetv2_lightm.runs.pipeline import Pipeline
from release.weights import make
from release.weights.__main__ import main
from release.weights.hold_out import WeightsError, hold_out
from release.weights.make import equal_labels, make_weights
from release.weights.models import HELD_OUT, MODELS, TRAINER

ROOT = Path(__file__).resolve().parents[2]
SEARCH_FOLD = 1  # benchmarks/accuracy/search.py


@pytest.mark.parametrize("name", MODELS)
def test_cases_kept_out_were_scored_in_no_comparison(name):
    scored = set()
    for file in (ROOT / "benchmarks" / "accuracy" / "results").glob("*.json"):
        content = json.loads(file.read_text())
        if isinstance(content, dict):
            scored |= {case for run in content["runs"] for case in (run.get("evaluation") or {}).get("cases", ())}
    assert len([case for case in scored if re.fullmatch(MODELS[name].cases, case)]) >= 22
    assert len(set(HELD_OUT[name])) >= 22 and not scored & set(HELD_OUT[name])


def test_lungs_kept_out_were_not_scored_by_the_search(data_root):
    """The study's split, and then nnU-Net's at random for a fold that splits_final.json lacks."""
    cases = [path.stem for path in (data_root / "chest_xray_masks_and_labels_256" / "CXR_png").glob("*.png")]
    split = split_cases({case: case[:3] for case in cases}, (7, 1, 2), 12345)
    keys = np.sort(split["train"] + split["val"])
    trained = np.random.RandomState(12345 + SEARCH_FOLD).choice(len(keys), int(len(keys) * 0.8), replace=False)
    validated = set(keys) - set(keys[trained])
    assert len(validated) == 89
    assert not (validated | set(split["val"]) | set(split["test"])) & set(HELD_OUT["lungs"])


def test_hippocampi_kept_out_are_of_a_fold_that_nothing_scored(data_root):
    from sklearn.model_selection import KFold  # as nnU-Net splits

    files = (data_root / "Task04_Hippocampus" / "imagesTr").glob("hippocampus_*.nii.gz")
    cases = sorted(path.name.removesuffix(".nii.gz") for path in files)
    folds = [part for _, part in KFold(5, shuffle=True, random_state=12345).split(cases)]
    assert sorted(HELD_OUT["hippocampus"]) == [cases[number] for number in folds[2]]


def write_dataset(folder: Path, cases, ending=".png") -> Path:
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / part).mkdir(parents=True)
    for number, case in enumerate(cases):
        (folder / "imagesTr" / f"{case}_0000{ending}").write_text(f"image {number}")
        (folder / "labelsTr" / f"{case}{ending}").write_text(f"label {number}")
    (folder / "imagesTs" / f"unlabelled_0000{ending}").write_text("image")
    (folder / "dataset.json").write_text(json.dumps({"file_ending": ending, "numTraining": len(cases)}))
    return folder


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_cases_are_kept_out_of_everything_before_planning(tmp_path):
    source = write_dataset(tmp_path / "source", ["a_1", "a_2", "a_20", "a_3"])
    target = tmp_path / "raw" / "Dataset001_A"
    for _ in range(2):  # the second time it is there
        assert hold_out(source, target, ["a_2"], r"a_\d+") == (3, 1)
    assert files_of(target) == [
        "dataset.json",
        "imagesTr/a_1_0000.png",
        "imagesTr/a_20_0000.png",
        "imagesTr/a_3_0000.png",
        "imagesTs/a_2_0000.png",
        "labelsTr/a_1.png",
        "labelsTr/a_20.png",
        "labelsTr/a_3.png",
        "labelsTs/a_2.png",
    ]
    assert (target / "labelsTs" / "a_2.png").read_text() == "label 1"
    assert json.loads((target / "dataset.json").read_text())["numTraining"] == 3
    with pytest.raises(WeightsError, match="other cases than"):
        hold_out(source, target, ["a_3"], r"a_\d+")


def test_no_image_of_shenzhen_gets_into_the_lungs(tmp_path):
    model = MODELS["lungs"]
    assert "--only montgomery" in model.data.convert
    source = write_dataset(tmp_path / "source", [*model.held_out, "MCUCXR_0001_0", "CHNCXR_0005_0"])
    with pytest.raises(WeightsError, match="must not be in this model: CHNCXR_0005_0"):
        hold_out(source, tmp_path / "target", model.held_out, model.cases)
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize(
    ("cases", "said"), [(["a_1"], "lacks 1 of the 2 cases.*a_2"), (["a_1", "a_2"], "no case to train on")]
)
def test_incomplete_data_are_refused(cases, said, tmp_path):
    source = write_dataset(tmp_path / "source", cases)
    with pytest.raises(WeightsError, match=said):
        hold_out(source, tmp_path / "target", ["a_1", "a_2"], r"a_\d+")
    assert not (tmp_path / "target").exists()


def test_what_is_missing_is_said_before_any_work(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "weights"
    monkeypatch.delenv("NNUNETV2_LIGHTM_DATA", raising=False)
    assert main(["lungs", str(folder)]) == 1
    assert "export NNUNETV2_LIGHTM_DATA=FOLDER" in capsys.readouterr().err
    monkeypatch.setenv("NNUNETV2_LIGHTM_DATA", str(tmp_path))
    assert main(["hippocampus", str(folder)]) == 1
    assert f"{tmp_path}/Task04_Hippocampus: is not there" in capsys.readouterr().err
    for arguments in (["liver", str(folder)], ["lungs", str(folder), "--budget", "2h"]):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 2
    assert not folder.exists()
    folder.mkdir()
    (folder / "hippocampus.zip").write_text("mine")
    (tmp_path / "Task04_Hippocampus").mkdir()
    assert main(["hippocampus", str(folder)]) == 1
    assert "was not written by this command" in capsys.readouterr().err
    assert files_of(folder) == ["hippocampus.zip"]


def write_labels(file: Path, values: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(values.astype(np.uint8)), str(file))


def test_voxels_of_all_images_count_alike(tmp_path):
    labels = {"a": np.zeros((2, 2, 2)), "b": np.zeros((4, 4, 2))}
    for case, values in labels.items():
        write_labels(tmp_path / "first" / f"{case}.nii.gz", values)
        write_labels(tmp_path / "second" / f"{case}.nii.gz", values if case == "b" else values + 1)
    assert equal_labels(tmp_path / "first", tmp_path / "second", ".nii.gz") == 32 / 40
    (tmp_path / "second" / "b.nii.gz").unlink()
    with pytest.raises(WeightsError, match="hold 2 and 1 segmentations"):
        equal_labels(tmp_path / "first", tmp_path / "second", ".nii.gz")


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A folder where every command has run already: what they leave is written here instead."""
    model, folder = MODELS["hippocampus"], tmp_path / "weights" / "hippocampus"
    place = f"{model.data.name}/{TRAINER}_1epochs_seed0__nnUNetPlans__3d_fullres"
    (tmp_path / "Task04_Hippocampus").mkdir()
    monkeypatch.setenv("NNUNETV2_LIGHTM_DATA", str(tmp_path))
    cases = [*model.held_out, "hippocampus_001"]
    write_dataset(folder / "converted" / "raw" / model.data.name, cases, ".nii.gz")
    rng = np.random.default_rng(0)
    scores = {metric: rng.random((len(model.held_out), 2)) for metric in ("DSC", "IoU")}
    evaluation = Evaluation(cases=model.held_out, classes=("Anterior", "Posterior"), scores=scores)
    (folder / "scores.json").write_text(to_json(evaluation))
    plans = {"configurations": {"3d_fullres": {"patch_size": [40, 56, 40], "spacing": [1, 1, 1], "batch_size": 2}}}
    packed = {"plans.json": json.dumps(plans).encode(), "fold_all/checkpoint_final.pth": b"weights"}
    write_entries(folder / "packed.zip", {f"{place}/{name}": content for name, content in packed.items()})
    for name in ("as_trained", "as_installed"):
        write_labels(folder / "predictions" / name / "hippocampus_011.nii.gz", np.zeros((10, 10, 10)))
    steps = []

    class Ran(Pipeline):
        """Its trainings took two minutes, and an hour for each epoch."""

        def run(self, *_, on_end, **__):
            self.folder.mkdir(parents=True, exist_ok=True)
            for step in self.steps:
                steps.append(step)
                if step.name not in self._state:
                    epochs = int(re.search(r"_(\d+)epochs|$", step.name)[1] or 0)
                    self._state[step.name] = {"complete": True, "seconds": 3600.0 * epochs + 123}
                    on_end(step, 0.0)
            self._save_state()

    monkeypatch.setattr(make, "Pipeline", Ran)
    return folder, place, steps


def test_the_card_has_the_numbers_of_the_evaluation(made):
    folder, place, steps = made
    out = make_weights("hippocampus", folder.parent, budget="1epochs", device="cpu")
    assert [step.name for step in steps] == [
        "convert",
        "fingerprint",
        "plan",
        "preprocess",
        f"train_{TRAINER}_1epochs_seed0",
        "predict",
        "pack",
        "install",
        "predict_installed",
        "evaluate",
    ]
    entries = read_entries(out)
    assert sorted(entries) == [
        f"{place}/{name}" for name in ("MODEL_CARD.md", "fold_all/checkpoint_final.pth", "plans.json")
    ]
    card = entries[f"{place}/MODEL_CARD.md"].decode()
    assert card == out.with_suffix(".md").read_text(encoding="utf-8")
    evaluation = read_evaluation(folder / "scores.json")
    rows = {cells[1].strip(): cells for line in card.splitlines() if len(cells := line.split("|")) == 6}
    for i, name in enumerate(evaluation.classes):
        for column, metric in ((2, "DSC"), (3, "IoU")):
            numbers = [evaluation.mean(metric)[i], evaluation.std(metric)[i], *evaluation.interval(metric)[i]]
            assert re.findall(r"\d\.\d+", rows[name][column]) == [f"{number:.4f}" for number in numbers]
        assert rows[name][4].strip() == "39"
    for said in (
        "CC BY-SA 4.0",
        "not for diagnosis",
        "1 trained on, 39 kept out",
        "patch 40x56x40, spacing 1x1x1 mm, batch 2",
        "62m03s",
        "100.0000 %",
        "arXiv:2403.05246",
        f"`{place}/fold_all/checkpoint_final.pth`",
        "hippocampus_383.",
        "nnUNetv2_install_pretrained_model_from_zip hippocampus.zip",
        "nnUNetv2_predict -d Dataset004_Hippocampus -c 3d_fullres -p nnUNetPlans "
        f"-tr {TRAINER}_1epochs_seed0 -f all -i IMAGES",
        f"SHA-256 `{hashlib.sha256(b'weights').hexdigest()}`",
    ):
        assert said in card


def test_float16_that_changes_predictions_makes_no_zip(made):
    folder, _, _ = made
    changed = np.zeros((10, 10, 10))
    changed[0, 0, :2] = 1
    write_labels(folder / "predictions" / "as_installed" / "hippocampus_011.nii.gz", changed)
    with pytest.raises(WeightsError, match=r"99.8000 % of the voxels"):
        make_weights("hippocampus", folder.parent, budget="1epochs", device="cpu")
    assert [path.name for path in folder.parent.iterdir()] == ["hippocampus"]


@pytest.mark.parametrize("noted", [True, False], ids=["noted", "killed_before_the_note"])
def test_the_card_names_the_machine_that_trained(made, monkeypatch, noted):
    """The command may be interrupted and go on elsewhere, or after an upgrade."""
    folder, _, _ = made
    monkeypatch.setattr(make, "machine", lambda: machine() | {"processor": "the first"})
    make_weights("hippocampus", folder.parent, budget="1epochs", device="cuda")
    if not noted:
        (folder / "steps" / f"machine_of_{TRAINER}_1epochs_seed0.json").unlink()
    monkeypatch.setattr(make, "machine", lambda: machine() | {"processor": "another"})
    card = make_weights("hippocampus", folder.parent, budget="1epochs", device="cpu").with_suffix(".md").read_text()
    assert ("cuda" in card, "the first" in card, "another" in card) == (noted, noted, not noted)


def test_the_card_has_the_seconds_of_its_own_training(made):
    """All budgets are trained in the same folder."""
    folder, _, _ = made
    packed = read_entries(folder / "packed.zip")
    for budget, time in (("1epochs", "62m03s"), ("2epochs", "2h02m"), ("1epochs", "62m03s")):
        entries = {name.replace("_1epochs_", f"_{budget}_"): content for name, content in packed.items()}
        write_entries(folder / "packed.zip", entries)
        card = make_weights("hippocampus", folder.parent, budget=budget, device="cpu").with_suffix(".md").read_text()
        assert f"{time} with nnU-Net's final validation" in card


def test_a_card_that_somebody_has_changed_is_kept(made, capsys):
    folder, _, _ = made
    card, kept = folder.with_suffix(".md"), folder.with_name("kept_hippocampus.md")
    for text in ("notes of my own", None, "the card with notes"):
        if text is not None:
            card.write_text(text)
        make_weights("hippocampus", folder.parent, budget="1epochs", device="cpu")
        assert card.read_text().startswith("# LightM-UNet for the hippocampus")
    assert kept.read_text() == "notes of my own"
    assert kept.with_name("kept_hippocampus.md-2").read_text() == "the card with notes"
    assert f"{card} is made anew; what was there is now {kept}" in capsys.readouterr().err

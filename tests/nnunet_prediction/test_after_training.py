"""What nnU-Net does with trained models, ours and those of its own trainer side by side."""

from __future__ import annotations

import json
import shlex
from itertools import combinations

import numpy as np
import pytest

from .workspace import FOLDS, OURS, STOCK, TEST_CASES, TRAINING_CASES, assert_equal, probabilities, segmentations

pytestmark = pytest.mark.slow

CONFIGURATIONS = ("2d", "3d_fullres")


def cross_validation(model, read):
    """All folds' validation cases of a model, read by a function of a folder."""
    return {case: values for fold in FOLDS for case, values in read(model / f"fold_{fold}" / "validation").items()}


def test_find_best_configuration(workspace):
    arguments = ("-tr", STOCK, OURS, "-c", *CONFIGURATIONS, "-np", 2)
    workspace.run("nnUNetv2_find_best_configuration", 900, *arguments)
    found = json.loads((workspace.results / "inference_information.json").read_text())

    models = [workspace.model(configuration, trainer) for trainer in (STOCK, OURS) for configuration in CONFIGURATIONS]
    ensembles = {f"ensemble___{a.name}___{b.name}___0_1_2_3_4": (a, b) for a, b in combinations(models, 2)}
    assert set(found["all_results"]) == {*(model.name for model in models), *ensembles}
    assert all(0 < dice < 1 for dice in found["all_results"].values())
    best = found["best_model_or_ensemble"]
    assert best["result_on_crossval_pre_pp"] == max(found["all_results"].values())
    for name, pair in ensembles.items():
        first, second = (cross_validation(model, probabilities) for model in pair)
        assert list(first) == list(second) and sorted(first) == TRAINING_CASES
        mean = {case: (values.astype(np.float32) + second[case]) / 2 for case, values in first.items()}
        expected = {case: mean[case].argmax(0) for case in TRAINING_CASES}
        assert_equal(segmentations(workspace.results / "ensembles" / name), expected)


def test_instructions_of_find_best_configuration(workspace, tmp_path):
    """The commands that it prints, as they are but for the names of the folders: predict, ensemble, postprocess."""
    workspace.run("nnUNetv2_find_best_configuration", 900, "-tr", OURS, "-c", *CONFIGURATIONS, "-np", 2)
    instructions = (workspace.results / "inference_instructions.txt").read_text()
    commands = [shlex.split(line) for line in instructions.splitlines() if line.startswith("nnUNetv2_")]
    models = sum(command[0] == "nnUNetv2_predict" for command in commands)
    assert len(commands) == (2 if models == 1 else 4) and commands[-1][0] == "nnUNetv2_apply_postprocessing"
    for command in commands:
        command = [word.replace("INPUT_FOLDER", str(workspace.raw / "imagesTs")) for word in command]
        command = [str(tmp_path / word) if word.startswith("OUTPUT_FOLDER") else word for word in command]
        fast = ["-device", "cpu", "--disable_tta", "-npp", "1", "-nps", "1"]
        workspace.run(*command, *(fast if command[0] == "nnUNetv2_predict" else []))
    assert list(segmentations(tmp_path / "OUTPUT_FOLDER_PP")) == TEST_CASES


def test_accumulate_crossval_results(workspace, tmp_path):
    arguments = ("-c", "3d_fullres", "-tr", OURS, "-o", tmp_path)
    workspace.run("nnUNetv2_accumulate_crossval_results", 900, *arguments)
    assert_equal(segmentations(tmp_path), dict(sorted(cross_validation(workspace.model(), segmentations).items())))
    summary = json.loads((tmp_path / "summary.json").read_text())
    folds = [json.loads((workspace.model() / f"fold_{fold}/validation/summary.json").read_text()) for fold in FOLDS]
    dice = np.mean([fold["foreground_mean"]["Dice"] for fold in folds])
    np.testing.assert_allclose(summary["foreground_mean"]["Dice"], dice)


def test_postprocessing(workspace, tmp_path):
    merged, applied = tmp_path / "merged", tmp_path / "applied"
    model = ("-c", "2d", "-tr", OURS, "-o", merged)
    workspace.run("nnUNetv2_accumulate_crossval_results", 900, *model)
    references = workspace.raw / "labelsTr"
    workspace.run("nnUNetv2_determine_postprocessing", "-i", merged, "-ref", references, "-np", 2)
    report = json.loads((merged / "postprocessing.json").read_text())
    summary = json.loads((merged / "summary.json").read_text())
    assert report["input_folder"]["mean"] == summary["mean"]
    assert report["postprocessed"]["foreground_mean"]["Dice"] >= summary["foreground_mean"]["Dice"]
    function = merged / "postprocessing.pkl"
    workspace.run("nnUNetv2_apply_postprocessing", "-i", merged, "-o", applied, "-pp_pkl_file", function, "-np", 2)
    assert_equal(segmentations(applied), segmentations(merged / "postprocessed"))


def test_export_to_zip_and_import_elsewhere(workspace, predicted, tmp_path, monkeypatch):
    archive, elsewhere = tmp_path / "model.zip", tmp_path / "elsewhere"
    workspace.run("nnUNetv2_export_model_to_zip", "-d", 900, "-o", archive, "-c", "3d_fullres", "-tr", OURS)
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.delenv(name)
    elsewhere.mkdir()
    monkeypatch.setenv("nnUNet_results", str(elsewhere))
    workspace.run("nnUNetv2_install_pretrained_model_from_zip", archive)
    workspace.predict(tmp_path / "output", "--save_probabilities")
    assert_equal(probabilities(tmp_path / "output"), probabilities(predicted))

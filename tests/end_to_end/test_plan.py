"""From the raw data set to a prediction by the stock trainer, which trains our network because the plans name it."""

from __future__ import annotations

import json

import pytest
import SimpleITK as sitk
import torch

pytestmark = pytest.mark.end_to_end

PLANS = "nnUNetLightMUNetPlans"
TRAINER = "nnUNetTrainer_1epochs_1iters"


def test_stock_commands_train_our_plans(workspace):
    phantoms = workspace.root / "phantoms"
    workspace.run(
        "python",
        "-m",
        "nnunetv2_lightm.dataset_conversion.phantoms",
        phantoms,
        "--num-cases",
        "10",
        "--seed",
        "3",
        "--shape",
        "16",
        "40",
        "40",
    )
    workspace.run("nnUNetv2_lightm", "convert", "lits", phantoms)
    printed = workspace.run("nnUNetv2_lightm", "plan", "801", "--batch-size", "2", "--gpu-memory-gb", "0.5")
    # What it says to run next, to the letter.
    preprocess, ours, train = [line.split() for line in printed.splitlines()[-3:]]
    assert train == ["nnUNetv2_train", "801", "3d_fullres", "0", "-p", PLANS]
    assert ours == [*train, "-tr", "nnUNetTrainerLightMUNet"]
    configurations = preprocess[preprocess.index("-c") + 1 :]
    workspace.run(*preprocess[: -len(configurations)], "3d_fullres", "-np", "1")

    again = workspace.run("nnUNetv2_lightm", "plan", "801", "--batch-size", "2", "--gpu-memory-gb", "0.5")
    assert "Already preprocessed: 3d_fullres." in again

    assert "Mean Validation Dice" in workspace.run(*train, "-tr", TRAINER, "-device", "cpu")
    model = workspace.model("Dataset801_LiTS", TRAINER, "3d_fullres", PLANS)
    assert json.loads((model / "plans.json").read_text())["plans_name"] == PLANS
    weights = torch.load(model / "fold_0/checkpoint_final.pth", weights_only=False)["network_weights"]
    assert any("A_log" in name for name in weights) and any("seg_layers.1." in name for name in weights)

    images, predictions = workspace.raw("Dataset801_LiTS") / "imagesTs", workspace.root / "predictions"
    workspace.run(
        "nnUNetv2_predict",
        "-i",
        images,
        "-o",
        predictions,
        "-d",
        "801",
        "-c",
        "3d_fullres",
        "-f",
        "0",
        "-tr",
        TRAINER,
        "-p",
        PLANS,
        "-device",
        "cpu",
        "--disable_tta",
    )
    for file in images.iterdir():
        prediction = sitk.ReadImage(str(predictions / file.name.replace("_0000", "")))
        assert prediction.GetSize() == sitk.ReadImage(str(file)).GetSize()

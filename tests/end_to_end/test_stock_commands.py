"""The stock nnU-Net commands on made and real data: convert, plan, train, predict, ensemble, evaluate."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

pytestmark = pytest.mark.end_to_end
OURS = "nnUNetTrainerLightMUNet_1epochs_2iters"
STOCK = "nnUNetTrainer_1epochs_1iters"
WITH_WORKERS = ("-npp", "1", "-nps", "1")  # as nnU-Net predicts by default; one prediction has them


def plan(workspace, dataset, *configurations):
    workspace.run(
        "nnUNetv2_plan_and_preprocess",
        "-d",
        int(dataset[7:10]),
        "-c",
        *configurations,
        "-np",
        "1",
        "-npfp",
        "1",
        "--verify_dataset_integrity",
        # A small machine's plan: the stock network, too, trains in seconds.
        "-gpu_memory_target",
        "0.2",
    )


def train(workspace, dataset, configuration, trainer):
    """Checks what the command leaves behind."""
    arguments = (int(dataset[7:10]), configuration, "0", "-tr", trainer, "-device", "cpu")
    output = workspace.run("nnUNetv2_train", *arguments)
    assert "Mean Validation Dice" in output
    if trainer == OURS:
        assert "parameters, selective scan backend: " in output
    fold = workspace.model(dataset, trainer, configuration) / "fold_0"
    for name in ("checkpoint_final.pth", "checkpoint_best.pth", "progress.png", "validation/summary.json"):
        assert (fold / name).is_file(), name


def predict(workspace, dataset, configuration, trainer, name, *options):
    """Predict the test images, with probabilities, into a folder of this name."""
    images, folder = workspace.raw(dataset) / "imagesTs", workspace.root / name
    workspace.run(
        "nnUNetv2_predict",
        "-i",
        images,
        "-d",
        int(dataset[7:10]),
        "-c",
        configuration,
        "-f",
        "0",
        "-device",
        "cpu",
        "--save_probabilities",
        "-o",
        folder,
        "-tr",
        trainer,
        *options,
    )
    check_predictions(workspace, dataset, folder)
    return folder


def ensemble(workspace, dataset, members):
    folder = workspace.root / "ensemble"
    workspace.run("nnUNetv2_ensemble", "-i", *members, "-o", folder, "-np", "1")
    check_predictions(workspace, dataset, folder)
    return folder


def check_predictions(workspace, dataset, folder):
    """One segmentation for each image, on its grid, with values that dataset.json names."""
    dataset_json = json.loads((workspace.raw(dataset) / "dataset.json").read_text())
    ending = dataset_json["file_ending"]
    images = sorted((workspace.raw(dataset) / "imagesTs").glob(f"*_0000{ending}"))
    assert images
    for image_file in images:
        image = sitk.ReadImage(str(image_file))
        prediction = sitk.ReadImage(str(folder / image_file.name.replace("_0000", "")))
        assert prediction.GetSize() == image.GetSize()
        if ending != ".png":
            for read in ("GetSpacing", "GetOrigin", "GetDirection"):
                np.testing.assert_allclose(getattr(prediction, read)(), getattr(image, read)(), atol=1e-5)
        assert set(np.unique(sitk.GetArrayFromImage(prediction))) <= set(dataset_json["labels"].values())


def assert_mirroring_changes_probabilities(mirrored, plain):
    """Mirroring averages over flips."""
    files = sorted(Path(mirrored).glob("*.npz"))
    assert files
    pairs = [(np.load(file)["probabilities"], np.load(plain / file.name)["probabilities"]) for file in files]
    assert all(a.shape == b.shape and np.isfinite(a).all() for a, b in pairs)
    assert any(np.abs(a.astype(float) - b.astype(float)).max() > 1e-4 for a, b in pairs)


def evaluate_like_nnunet(workspace, dataset, predictions):
    """Our table's Dice is that of nnU-Net's own summary.json."""
    references = workspace.raw(dataset) / "labelsTs"
    ours, theirs = workspace.root / "ours.json", predictions / "summary.json"
    table = workspace.run("nnUNetv2_lightm", "evaluate", predictions, references, "--json", ours)
    workspace.run(
        "nnUNetv2_evaluate_folder",
        references,
        predictions,
        "-np",
        "1",
        "-o",
        theirs,
        "-djfile",
        predictions / "dataset.json",
        "-pfile",
        workspace.root / "nnUNet_preprocessed" / dataset / "nnUNetPlans.json",
    )
    dataset_json = json.loads((workspace.raw(dataset) / "dataset.json").read_text())
    scores, summary = json.loads(ours.read_text()), json.loads(theirs.read_text())
    for name, value in dataset_json["labels"].items():
        if value:
            assert name in table
            for metric, nnunet_metric in (("DSC", "Dice"), ("IoU", "IoU")):
                expected = summary["mean"][str(value)][nnunet_metric]
                mean = scores["classes"][name][metric]["mean"]
                assert np.isnan(expected) if mean is None else mean == pytest.approx(expected)


def test_phantoms_in_the_lits_layout(workspace):
    """Both configurations and both kinds of network, in one ensemble."""
    dataset = "Dataset801_LiTS"
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
    output = workspace.run("nnUNetv2_lightm", "convert", "lits", phantoms)
    assert "nnUNetv2_plan_and_preprocess -d 801" in output
    plan(workspace, dataset, "3d_fullres", "2d")
    members = []
    for configuration, trainer, *options in (
        ("3d_fullres", OURS, *WITH_WORKERS),
        ("2d", OURS),
        ("3d_fullres", STOCK, "--disable_tta"),
    ):
        train(workspace, dataset, configuration, trainer)
        members.append(predict(workspace, dataset, configuration, trainer, f"{configuration}_{trainer}", *options))
    evaluate_like_nnunet(workspace, dataset, ensemble(workspace, dataset, members))
    (split,) = json.loads((workspace.root / f"nnUNet_preprocessed/{dataset}/splits_final.json").read_text())
    for configuration in ("3d_fullres", "2d"):
        validated = workspace.model(dataset, OURS, configuration) / "fold_0" / "validation"
        assert {file.name[: -len(".nii.gz")] for file in validated.glob("*.nii.gz")} == set(split["val"])


def test_hippocampus_3d(workspace, data_root):
    """A few real cases in the MSD layout, converted by nnU-Net itself; both kinds of stored image are among them."""
    source, target = data_root / "Task04_Hippocampus", workspace.root / "Task04_Hippocampus"
    content = json.loads((source / "dataset.json").read_text())
    content["training"] = content["training"][:12]
    content["numTraining"] = 12
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (target / folder).mkdir(parents=True)
    for case in content["training"]:
        for file in case.values():
            shutil.copyfile(source / file, target / file)
    for file in content["test"]:
        shutil.copyfile(source / file, target / file)
    (target / "dataset.json").write_text(json.dumps(content))
    workspace.run("nnUNetv2_convert_MSD_dataset", "-i", target, "-np", "1")
    dataset = "Dataset004_Hippocampus"
    plan(workspace, dataset, "3d_fullres")
    train(workspace, dataset, "3d_fullres", OURS)
    predict(workspace, dataset, "3d_fullres", OURS, "ours")


def test_chest_xrays_2d(workspace, data_root):
    source = workspace.root / "xrays"
    pairs = sorted((data_root / "chest_xray_512_subset" / "CXR_png").glob("*.png"))
    for folder in ("CXR_png", "masks"):
        (source / folder).mkdir(parents=True)
    for image in [*pairs[:7], *pairs[-7:]]:
        mask = f"{image.stem}_mask.png" if image.stem.startswith("CHN") else image.name
        shutil.copyfile(image, source / "CXR_png" / image.name)
        shutil.copyfile(image.parents[1] / "masks" / mask, source / "masks" / mask)
    workspace.run("nnUNetv2_lightm", "convert", "montgomery-shenzhen", source, "--resize", "96", "96")
    dataset = "Dataset802_MontgomeryShenzhen"
    plan(workspace, dataset, "2d")
    for trainer in (OURS, STOCK):
        train(workspace, dataset, "2d", trainer)
    ours = predict(workspace, dataset, "2d", OURS, "ours")
    plain = predict(workspace, dataset, "2d", OURS, "plain", "--disable_tta")
    assert_mirroring_changes_probabilities(ours, plain)
    stock = predict(workspace, dataset, "2d", STOCK, "stock", "--disable_tta")
    evaluate_like_nnunet(workspace, dataset, ensemble(workspace, dataset, (ours, stock)))

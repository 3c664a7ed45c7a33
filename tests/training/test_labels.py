"""nnU-Net's kinds of labels: each is learned, not only run through. Two of the models are exported and predict too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from ..nnunet_in_process import Nnunet
from ..prediction import assert_same_segmentation

pytestmark = pytest.mark.slow

LEARNING = "nnUNetTrainerLightMUNet_1epochs_80iters"
# From a third of the rows 80 iterations find the lesion with some seeds only, and on some processors.
LEARNING_SPARSE = "nnUNetTrainerLightMUNet_1epochs_200iters"
SEVERAL_TILES = {"shape": (8, 40, 40)}
REGIONS = {"background": 0, "whole organ": [1, 2], "lesion": [2]}


def every_third_row(rng, label):
    """Sparse annotation: the rest has the ignore label, 3."""
    annotated = np.zeros(label.shape, bool)
    annotated[:, rng.integers(3) :: 3] = True
    return np.where(annotated, label, 3)


def sixty_classes(rng, shape):
    """Blocks of 4^3 voxels, each with another label, some of them background."""
    blocks = [size // 4 for size in shape]
    label = rng.permutation(np.prod(blocks)).reshape(blocks)
    return np.where(label <= 60, label, 0).repeat(4, 0).repeat(4, 1).repeat(4, 2)


def learn(nnunet: Nnunet, dataset: str, trainer: str = LEARNING, **phantoms: object) -> tuple[dict[str, float], int]:
    """Train in 2D until the boxes are found roughly; returns Dice by label or region, and the number of heads."""
    nnunet.make_dataset(dataset, "2d", **phantoms)
    np.random.seed(0)
    torch.manual_seed(0)
    fold = nnunet.train(dataset, "2d", trainer=trainer)
    prediction = sitk.GetArrayFromImage(sitk.ReadImage(str(fold / "validation" / "case_2.nii.gz")))
    assert set(np.unique(prediction)) == {0, 1, 2}
    summary = json.loads((fold / "validation" / "summary.json").read_text())
    network = torch.load(fold / "checkpoint_final.pth", weights_only=False)["network_weights"]
    dice = {label: scores["Dice"] for label, scores in summary["mean"].items()}
    return dice, len(network["decoder.seg_layers.0.pointwise.bias"])


def assert_engine_predicts_the_same(nnunet: Nnunet, dataset: str, out: Path) -> None:
    """From a bundle of float16 weights, as nnU-Net's command with the checkpoint, float16 sums and all."""
    pytest.importorskip("lightm_runtime", reason="lightm-runtime is not installed: pip install ./runtime")
    from ..runtime.nnunets_commands import predict_both

    fold = nnunet.fold(dataset, "2d", trainer=LEARNING)
    files = predict_both(nnunet, fold, nnunet.root / "nnUNet_raw" / dataset / "imagesTr", out)
    assert len(files) == 3
    for found, expected in files:
        # A lesion has a few hundred voxels: one that float16 decides is more than the promised thousandth.
        assert_same_segmentation(found, expected, dice=0.99)


def test_labels(nnunet, tmp_path):
    dataset = "Dataset301_Labels"
    dice, heads = learn(nnunet, dataset, **SEVERAL_TILES)
    assert heads == 3
    assert min(dice["1"], dice["2"]) > 0.25
    assert_engine_predicts_the_same(nnunet, dataset, tmp_path)


def test_regions(nnunet, tmp_path):
    dataset = "Dataset302_Regions"
    dice, heads = learn(nnunet, dataset, labels=REGIONS, regions_class_order=[1, 2], **SEVERAL_TILES)
    assert heads == 2
    assert min(dice["(1, 2)"], dice["(2,)"]) > 0.25
    assert_engine_predicts_the_same(nnunet, dataset, tmp_path)


def test_ignore_label(nnunet):
    labels = {"background": 0, "organ": 1, "lesion": 2, "ignore": 3}
    dice, heads = learn(nnunet, "Dataset303_Sparse", LEARNING_SPARSE, labels=labels, annotate=every_third_row)
    assert heads == 3
    assert min(dice["1"], dice["2"]) > 0.25


def test_regions_with_ignore_label(nnunet):
    labels = {**REGIONS, "ignore": 3}
    phantoms = {"labels": labels, "regions_class_order": [1, 2], "annotate": every_third_row}
    dice, heads = learn(nnunet, "Dataset304_SparseRegions", LEARNING_SPARSE, **phantoms)
    assert heads == 2
    assert min(dice["(1, 2)"], dice["(2,)"]) > 0.25


def test_sixty_classes(nnunet):
    dataset = "Dataset305_Sixty"
    labels = {"background": 0, **{f"class {k}": k for k in range(1, 61)}}
    nnunet.make_dataset(dataset, "3d_fullres", labels=labels, make_label=sixty_classes)
    fold = nnunet.train(dataset, "3d_fullres")
    summary = json.loads((fold / "validation" / "summary.json").read_text())
    assert len(summary["mean"]) == 60
    network = torch.load(fold / "checkpoint_final.pth", weights_only=False)["network_weights"]
    assert len(network["decoder.seg_layers.0.pointwise.bias"]) == 61

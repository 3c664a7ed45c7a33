"""Real images: hippocampus MRIs and chest X-rays. nnU-Net trains for a minute and predicts by its own command; the
engine's labels are the same within the promise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from ..nnunet_in_process import Nnunet, nnunet_in_process
from ..prediction import assert_same_segmentations
from .nnunets_commands import predict_both

pytestmark = pytest.mark.slow

CASES = 4
TRAINER = "nnUNetTrainerLightMUNet_1epochs_{}iters"


@pytest.fixture
def nnunet(tmp_path) -> Iterator[Nnunet]:
    with nnunet_in_process(tmp_path) as nnunet:
        yield nnunet


def test_hippocampus(nnunet, data_root, tmp_path):
    source = data_root / "Task04_Hippocampus"
    labels = {"background": 0, "anterior": 1, "posterior": 2}
    pairs = {
        path.name.removesuffix(".nii.gz"): (path, source / "labelsTr" / path.name)
        for path in sorted(source.glob("imagesTr/hippocampus_*.nii.gz"))[:CASES]
    }
    nnunet.max_patch_voxels = 40 * 56 * 40
    compare_on(pairs, "Dataset340_Hippocampus", "3d_fullres", labels, ".nii.gz", 30, nnunet, tmp_path)


def test_chest_x_rays(nnunet, data_root, tmp_path):
    source = data_root / "chest_xray_masks_and_labels_256"
    pairs = {
        path.stem: (path, source / "masks" / f"{path.stem}.png")
        for path in sorted(source.glob("CXR_png/MCU*.png"))[:CASES]
    }
    nnunet.max_patch_voxels = 256 * 256
    compare_on(pairs, "Dataset341_Chest", "2d", {"background": 0, "lung": 1}, ".png", 12, nnunet, tmp_path)


def compare_on(
    pairs: dict[str, tuple[Path, Path]],
    dataset: str,
    configuration: str,
    labels: dict[str, int],
    ending: str,
    iterations: int,
    nnunet: Nnunet,
    out: Path,
) -> None:
    assert len(pairs) == CASES
    raw = nnunet.root / "nnUNet_raw" / dataset
    write_raw(raw, pairs, labels, ending)
    nnunet.plan_and_preprocess(dataset, configuration)
    np.random.seed(0)
    torch.manual_seed(0)
    fold = nnunet.train(dataset, configuration, fold="all", trainer=TRAINER.format(iterations))
    files = predict_both(nnunet, fold, raw / "imagesTr", out)
    assert len(files) == CASES
    expected = [sitk.GetArrayFromImage(sitk.ReadImage(str(path))) for _, path in files]
    assert set(np.unique(np.concatenate([array.ravel() for array in expected]))) == set(labels.values())
    assert_same_segmentations(files)


def write_raw(folder: Path, pairs: dict[str, tuple[Path, Path]], labels: dict[str, int], ending: str) -> None:
    """nnU-Net's raw format: masks of PNG are 0 and 255 in the source."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for case, (image, label) in pairs.items():
        shutil.copyfile(image, folder / "imagesTr" / f"{case}_0000{ending}")
        mask = sitk.ReadImage(str(label))
        if ending == ".png":
            mask = mask > 127
        sitk.WriteImage(sitk.Cast(mask, sitk.sitkUInt8), str(folder / "labelsTr" / f"{case}{ending}"))
    content = {"channel_names": {"0": "noname"}, "labels": labels, "numTraining": len(pairs), "file_ending": ending}
    (folder / "dataset.json").write_text(json.dumps(content))

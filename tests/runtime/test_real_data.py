"""Real images: nnU-Net trains on hippocampus MRIs for a few minutes and predicts by its own command; the engine's
labels are the same within the promise."""

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

CASES = 10
TRAINER = "nnUNetTrainerLightMUNetMuon_1epochs_80iters"


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
    compare_on(pairs, "Dataset340_Hippocampus", "3d_fullres", labels, ".nii.gz", nnunet, tmp_path)


def compare_on(
    pairs: dict[str, tuple[Path, Path]],
    dataset: str,
    configuration: str,
    labels: dict[str, int],
    ending: str,
    nnunet: Nnunet,
    out: Path,
) -> None:
    assert len(pairs) == CASES
    raw = nnunet.root / "nnUNet_raw" / dataset
    write_raw(raw, pairs, labels, ending)
    nnunet.plan_and_preprocess(dataset, configuration)
    np.random.seed(0)
    torch.manual_seed(0)
    fold = nnunet.train(dataset, configuration, fold="all", trainer=TRAINER)
    files = predict_both(nnunet, fold, raw / "imagesTr", out)
    assert len(files) == CASES
    expected = [sitk.GetArrayFromImage(sitk.ReadImage(str(path))) for _, path in files]
    assert set(np.unique(np.concatenate([array.ravel() for array in expected]))) == set(labels.values())
    assert_same_segmentations(files)


def write_raw(folder: Path, pairs: dict[str, tuple[Path, Path]], labels: dict[str, int], ending: str) -> None:
    """Write nnU-Net's raw format; labels as whole numbers, which two files do not have."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for case, (image, label) in pairs.items():
        shutil.copyfile(image, folder / "imagesTr" / f"{case}_0000{ending}")
        sitk.WriteImage(
            sitk.Cast(sitk.ReadImage(str(label)), sitk.sitkUInt8), str(folder / "labelsTr" / f"{case}{ending}")
        )
    content = {"channel_names": {"0": "noname"}, "labels": labels, "numTraining": len(pairs), "file_ending": ending}
    (folder / "dataset.json").write_text(json.dumps(content))

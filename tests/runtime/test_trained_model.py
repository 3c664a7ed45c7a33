"""Models that nnU-Net trained and predicts with by its own commands, float16 sums and all: the engine's file is the
same within the promise, from a bundle of float16 weights. Labels and regions in 2D: tests/training/test_labels.py."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from ..nnunet_in_process import Nnunet, nnunet_in_process
from ..prediction import assert_same_segmentation
from .nnunets_commands import predict_both

pytestmark = pytest.mark.slow

TRAINER = "nnUNetTrainerLightMUNet_1epochs_80iters"


@pytest.fixture(scope="module")
def nnunet(module_folder) -> Iterator[Nnunet]:
    with nnunet_in_process(module_folder) as nnunet:
        yield nnunet


PHANTOMS = {
    "thick slices": ("3d_fullres", {"shape": (12, 28, 28), "spacing": (4.0, 1.0, 1.0)}),
    "two channels": ("2d", {"shape": (8, 40, 40), "channels": 2}),
}


@pytest.mark.parametrize("name", PHANTOMS)
def test_phantoms(name, nnunet, tmp_path):
    configuration, phantoms = PHANTOMS[name]
    dataset = f"Dataset{320 + list(PHANTOMS).index(name)}_Phantoms"
    nnunet.make_dataset(dataset, configuration, **phantoms)
    np.random.seed(0)
    torch.manual_seed(0)
    fold = nnunet.train(dataset, configuration, trainer=TRAINER)
    files = predict_both(nnunet, fold, nnunet.root / "nnUNet_raw" / dataset / "imagesTr", tmp_path)
    assert len(files) == 3
    for found, expected in files:
        # A lesion has a few hundred voxels: one that float16 decides is more than the promised thousandth.
        assert_same_segmentation(found, expected, dice=0.99)
    shutil.rmtree(fold)

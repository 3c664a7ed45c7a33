"""Trainers on tiny plans, with folders of their own."""

from __future__ import annotations

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_lightm.trainers import find_trainer

from .plans import DATASET_JSON, make_plans


@pytest.fixture
def make_trainer(tmp_path, monkeypatch):
    """Trainer by name and configuration. nnU-Net reads its folders when it is imported."""
    module = __import__(nnUNetTrainer.__module__, fromlist=["nnUNet_results"])
    for name in ("nnUNet_results", "nnUNet_preprocessed"):
        path = tmp_path / name
        path.mkdir()
        monkeypatch.setenv(name, str(path))
    monkeypatch.setattr(module, "infer_dataset_class", lambda folder: None)

    def make(name, configuration="3d_fullres", *, continue_training=False):
        plans = {**make_plans(), "continue_training": continue_training}
        return find_trainer(name)(plans, configuration, 0, DATASET_JSON, torch.device("cpu"))

    return make

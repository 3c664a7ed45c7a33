"""Trainers without a data set: the parts of a plans file that they read."""

from __future__ import annotations

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_lightm.trainers import find_trainer

STRIDES = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]]
DATASET_JSON = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "liver": 1, "tumor": 2},
    "file_ending": ".nii.gz",
}


def make_plans() -> dict:
    """The parts of a plans file that a trainer reads."""
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 4,
            "features_per_stage": [4, 8, 8, 8],
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * 4,
            "strides": STRIDES,
            "n_conv_per_stage": [1] * 4,
            "n_conv_per_stage_decoder": [1] * 3,
        },
        "_kw_requires_import": ["conv_op"],
    }
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "patch_size": [8, 16, 16],
        "batch_size": 2,
        "spacing": [2.0, 1.0, 1.0],
        "batch_dice": True,
        "architecture": architecture,
    }
    return {
        "dataset_name": "Dataset801_LiTS",
        "plans_name": "nnUNetPlans",
        "label_manager": "LabelManager",
        "configurations": {"3d_fullres": configuration},
    }


@pytest.fixture
def make_trainer(tmp_path, monkeypatch):
    """Trainer by name, with folders of its own. nnU-Net reads its folders when it is imported."""
    module = __import__(nnUNetTrainer.__module__, fromlist=["nnUNet_results"])
    for name in ("nnUNet_results", "nnUNet_preprocessed"):
        path = tmp_path / name
        path.mkdir()
        monkeypatch.setenv(name, str(path))
    monkeypatch.setattr(module, "infer_dataset_class", lambda folder: None)

    def make(name, continue_training=False):
        plans = {**make_plans(), "continue_training": continue_training}
        return find_trainer(name)(plans, "3d_fullres", 0, DATASET_JSON, torch.device("cpu"))

    return make

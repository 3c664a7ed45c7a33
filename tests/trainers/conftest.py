"""Trainers without a data set: the parts of a plans file that they read."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_lightm.trainers import TRAINERS, find_trainer

from ..networks.small import SMALL

STRIDES = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]]
DATASET_JSON = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "liver": 1, "tumor": 2},
    "file_ending": ".nii.gz",
}


def make_plans() -> dict:
    """The parts of a plans file that a trainer reads; patches 8x16x16 and 16x24."""
    return {
        "dataset_name": "Dataset801_LiTS",
        "plans_name": "nnUNetPlans",
        "label_manager": "LabelManager",
        "configurations": {
            "3d_fullres": _configuration("3d_fullres", [8, 16, 16], STRIDES),
            "2d": _configuration("2d", [16, 24], [stride[1:] for stride in STRIDES]),
        },
        "continue_training": False,
    }


def _configuration(name: str, patch_size: list[int], strides: list[list[int]]) -> dict:
    dims = len(patch_size)
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 4,
            "features_per_stage": [4, 8, 8, 8],
            "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
            "kernel_sizes": [[3] * dims] * 4,
            "strides": strides,
            "n_conv_per_stage": [1] * 4,
            "n_conv_per_stage_decoder": [1] * 3,
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "nonlin"],
    }
    return {
        "data_identifier": f"nnUNetPlans_{name}",
        "patch_size": patch_size,
        "batch_size": 2,
        "spacing": [2.0, 1.0, 1.0][-dims:],
        "batch_dice": True,
        "architecture": architecture,
    }


@pytest.fixture(autouse=True)
def small_networks_of_monai(monkeypatch):
    """At full size a training step takes half a minute; only a builder's options differ."""
    for trainer in TRAINERS.values():
        builder = getattr(trainer, "builder", None)
        if builder is not None:
            monkeypatch.setattr(trainer, "builder", staticmethod(partial(builder, **SMALL[builder])))


@pytest.fixture
def make_trainer(tmp_path, monkeypatch):
    """Trainer by name, with folders of its own. nnU-Net reads its folders when it is imported."""
    module = __import__(nnUNetTrainer.__module__, fromlist=["nnUNet_results"])
    for name in ("nnUNet_results", "nnUNet_preprocessed"):
        path = tmp_path / name
        path.mkdir()
        monkeypatch.setenv(name, str(path))
    monkeypatch.setattr(module, "infer_dataset_class", lambda folder: None)

    def make(name, configuration="3d_fullres", *, continue_training=False, device="cpu"):
        plans = {**make_plans(), "continue_training": continue_training}
        return find_trainer(name)(plans, configuration, 0, DATASET_JSON, torch.device(device))

    return make

"""A planned data set that is small enough to train on within seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

DATASET = "Dataset901_Small"


def architecture(axes: int) -> dict:
    """nnU-Net's network with three stages; the first axis of a 3D image is halved once."""
    thin = [1] * (axes - 2)
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 3,
            "features_per_stage": [4, 8, 8],
            "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
            "kernel_sizes": [[3] * axes] * 3,
            "strides": [[1] * axes, [*thin, 2, 2], [2] * axes],
            "n_conv_per_stage": [1, 1, 1],
            "n_conv_per_stage_decoder": [1, 1],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op"],
    }


PLANS = {
    "dataset_name": DATASET,
    "plans_name": "nnUNetPlans",
    "label_manager": "LabelManager",
    "configurations": {
        "2d": {
            "data_identifier": "nnUNetPlans_2d",
            "patch_size": [16, 24],
            "batch_size": 2,
            "batch_dice": True,
            "architecture": architecture(2),
        },
        "3d_lowres": {
            "data_identifier": "nnUNetPlans_3d_lowres",
            "patch_size": [4, 16, 16],
            "batch_size": 2,
            "batch_dice": False,
            "architecture": architecture(3),
            "next_stage": "3d_cascade_fullres",
        },
        "3d_cascade_fullres": {"inherits_from": "3d_lowres", "previous_stage": "3d_lowres"},
    },
}


class PlannedDataset:
    """Folders of nnU-Net with the plans of one data set, and nothing else.

    Attributes:
        folder: The data set's in nnUNet_preprocessed.
        root: Holds nnU-Net's folders.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / "nnUNet_preprocessed" / DATASET
        for name in ("nnUNet_raw", "nnUNet_results"):
            (root / name).mkdir()
        self.folder.mkdir(parents=True)
        (self.folder / "nnUNetPlans.json").write_text(json.dumps(PLANS), encoding="utf-8")
        self.set_labels({"background": 0, "liver": 1, "tumor": 2})

    def set_labels(self, labels: dict, **more: object) -> None:
        """Rewrite dataset.json."""
        content = {"channel_names": {"0": "CT", "1": "CT"}, "labels": labels, "file_ending": ".nii.gz", **more}
        (self.folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")

    def files(self) -> set[Path]:
        return {path.relative_to(self.root) for path in self.root.rglob("*") if path.is_file()}


@pytest.fixture
def planned_dataset(tmp_path, monkeypatch) -> PlannedDataset:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
    return PlannedDataset(tmp_path)

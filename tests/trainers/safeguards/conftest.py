"""A preprocessed data set of three tiny cases, and trainers on it as nnUNetv2_train makes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

NAME = "Dataset801_LiTS"
TRAINER = "nnUNetTrainerLightMUNet_1epochs_1iters"
SHAPE = (8, 16, 16)
CASES = ("case_a", "case_b", "case_c")
NUMBER_OF_STAGES = 4


class Dataset:
    """The files below nnUNet_preprocessed and nnUNet_results, and what is done with them.

    Attributes:
        base: Folder of the data set.
        folder: Folder of the preprocessed cases of 3d_fullres.
        results: nnUNet_results.
    """

    def __init__(self, preprocessed: Path, results: Path) -> None:
        self.base = preprocessed / NAME
        self.folder = self.base / "nnUNetPlans_3d_fullres"
        self.results = results
        (self.base / "gt_segmentations").mkdir(parents=True)
        self.folder.mkdir()
        self.write("nnUNetPlans.json", plans())
        labels = {"background": 0, "liver": 1, "tumor": 2}
        dataset_json = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"}
        self.write("dataset.json", dataset_json)
        self.write("dataset_fingerprint.json", {})
        self.write("splits_final.json", [{"train": list(CASES[:2]), "val": list(CASES[2:])}])
        for number, case in enumerate(CASES):
            random = np.random.default_rng(number)
            self.write_case(case, random.normal(size=(1, *SHAPE)), random.integers(0, 3, (1, *SHAPE)))
            (self.base / "gt_segmentations" / f"{case}.nii.gz").touch()

    def write(self, name: str, content: object) -> None:
        (self.base / name).write_text(json.dumps(content))

    def change(self, name: str, change) -> None:
        """Apply a function to the content of a JSON file."""
        content = json.loads((self.base / name).read_text())
        change(content)
        self.write(name, content)

    def change_configuration(self, **values: object) -> None:
        self.change("nnUNetPlans.json", lambda plans: plans["configurations"]["3d_fullres"].update(values))

    def write_case(self, case: str, image: np.ndarray, label: np.ndarray, **more: object) -> None:
        """``more``: properties."""
        for path in self.folder.glob(f"{case}*"):
            path.unlink()
        image, label = image.astype(np.float32), label.astype(np.int8)
        properties = {"class_locations": {value: np.argwhere(label == value)[:50] for value in (1, 2)}} | more
        whole = {"chunks": image.shape, "blocks": image.shape}
        nnUNetDatasetBlosc2.save_case(image, label, properties, str(self.folder / case), **whole)

    def trainer(self, name: str = TRAINER, fold: int | str = 0) -> nnUNetTrainer:
        """As nnUNetv2_train makes it."""
        return get_trainer_from_args(NAME, "3d_fullres", fold, name, device=torch.device("cpu"))

    def continued(self, trainer: nnUNetTrainer) -> None:
        """What --c does before the training continues."""
        maybe_load_checkpoint(trainer, continue_training=True, validation_only=False)


def plans() -> dict:
    stride = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]]
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": NUMBER_OF_STAGES,
            "features_per_stage": [4, 8, 8, 8],
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * NUMBER_OF_STAGES,
            "strides": stride,
            "n_conv_per_stage": [1] * NUMBER_OF_STAGES,
            "n_conv_per_stage_decoder": [1] * (NUMBER_OF_STAGES - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "nonlin": "torch.nn.LeakyReLU",
        },
        "_kw_requires_import": ["conv_op", "norm_op", "nonlin"],
    }
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "patch_size": list(SHAPE),
        "batch_size": 2,
        "spacing": [2.0, 1.0, 1.0],
        "batch_dice": True,
        "use_mask_for_norm": [False],
        "architecture": architecture,
    }
    return {
        "dataset_name": NAME,
        "plans_name": "nnUNetPlans",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {"mean": 100.0, "std": 20.0}},
        "configurations": {"3d_fullres": configuration},
    }


@pytest.fixture
def dataset(tmp_path, monkeypatch) -> Dataset:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    return Dataset(tmp_path / "nnUNet_preprocessed", tmp_path / "nnUNet_results")

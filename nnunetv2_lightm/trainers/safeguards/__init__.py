"""Our trainers' checks where nnU-Net continues silently or fails obscurely; docs/faults.md lists all faults."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from ...dataset_json import channel_names_of
from ...files import some_of
from ...nnunet_faults import faults_of_dataset_json, faults_of_plans, missing_files, plan_again
from ...preprocessed import check_preprocessed_cases
from .architectures import OtherArchitectureError, refuse_other_weights
from .files import ImagesRefusedError, check_raw_files
from .finite import NotFiniteError, check_batch, check_weights, reject_nonfinite_images
from .lock import FoldIsBeingTrainedError, train_alone
from .optimizer_state import STATE_OF_A_TRAINING, NoTrainingStateError, OtherRecipeError, refuse_other_recipe

__all__ = [
    "FoldIsBeingTrainedError",
    "ImagesRefusedError",
    "NoTrainingStateError",
    "NotFiniteError",
    "OtherArchitectureError",
    "OtherRecipeError",
    "Safeguards",
    "check_plans",
    "safeguarded",
    "train_alone",
]

# nnU-Net's blur (sigma up to 1) has kernels of up to 7 voxels; an axis has to be longer than the 3 it is padded with.
SMALLEST_AXIS_VOXELS = 4
SHOWN = 5


def safeguarded(network: nn.Module) -> nn.Module:
    """For build_network_architecture: make the network refuse other networks' weights and images with NaN."""
    return reject_nonfinite_images(refuse_other_weights(network))


class Safeguards(nnUNetTrainer):
    """Base of our trainers: finds faults before training starts or, at the latest, before they spoil it."""

    def initialize(self) -> None:
        try:
            super().initialize()
        # What nnU-Net raises for a missing folder, and for an empty one.
        except (FileNotFoundError, AssertionError) as error:
            folder = Path(self.preprocessed_dataset_folder)
            if folder.is_dir() and any(folder.iterdir()):
                raise
            raise FileNotFoundError(
                f"{folder} holds no preprocessed cases. Make them: "
                f"{plan_again(self.plans_manager.dataset_name, self.configuration_name)}"
            ) from error
        refuse_other_recipe(self.optimizer)

    def get_tr_and_val_datasets(self) -> tuple:
        """As in nnU-Net, which notices a missing file only when it happens to draw the case, or after the training."""
        train, validation = super().get_tr_and_val_datasets()
        for name, dataset in (("training", train), ("validation", validation)):
            if not dataset.identifiers:
                raise ValueError(f"fold {self.fold} has no case for {name}: look at {self._splits_file()}")
        previous_stage = self.folder_with_segs_from_previous_stage
        missing = missing_files(
            Path(self.preprocessed_dataset_folder),
            sorted({*train.identifiers, *validation.identifiers}),
            ground_truth=(
                Path(self.preprocessed_dataset_folder_base, "gt_segmentations"),
                self.dataset_json["file_ending"],
            ),
            previous_stage=None if previous_stage is None else Path(previous_stage),
        )
        if missing:
            files = some_of(missing, SHOWN, separator="\n  ")
            raise FileNotFoundError(
                f"{len(missing)} files of the cases of fold {self.fold} are missing:\n  {files}\nPreprocess again "
                f"({plan_again(self.plans_manager.dataset_name)}), or fix the split in {self._splits_file()}"
            )
        channel_names = channel_names_of(self.dataset_json)
        check_preprocessed_cases([train, validation], channel_names, self.plans_manager, self.configuration_manager)
        if self.local_rank == 0 and self.current_epoch == 0:  # what was begun has passed; the others wait meanwhile
            cases = {*train.identifiers, *validation.identifiers}
            check_raw_files(self.plans_manager.dataset_name, self.dataset_json, cases, self.print_to_log_file)
        return train, validation

    @classmethod
    def get_training_transforms(cls, patch_size: Sequence[int], *args: Any, **kwargs: Any) -> BasicTransform:
        """As in nnU-Net, which fails in the middle of the training when it happens to draw a blur wider than an axis.

        Raises: ValueError: if an axis of the patch is too short.
        """
        if min(patch_size) < SMALLEST_AXIS_VOXELS:
            raise ValueError(
                f"the patch, {tuple(patch_size)} voxels, is too small for nnU-Net's augmentation, which blurs along "
                f"every axis: {SMALLEST_AXIS_VOXELS} voxels are needed on each. Plan a larger patch (images are padded "
                "to it), or train the 2d configuration"
            )
        return super().get_training_transforms(patch_size, *args, **kwargs)

    def run_training(self) -> None:
        """As in nnU-Net, but refuses to start while another process trains this fold."""
        train_alone(self, super().run_training)

    def train_step(self, batch: dict) -> dict:
        return self._checked_step(super().train_step, batch)

    def _checked_step(self, step: Callable[[dict], dict], batch: dict) -> dict:
        """A training step whose inputs and result are checked."""
        check_batch(batch, self._describe_case)
        result = step(batch)
        if not np.isfinite(result["loss"]):
            check_weights(self.network, f"the loss is {float(result['loss'])} although the images are finite")
        return result

    def validation_step(self, batch: dict) -> dict:
        check_batch(batch, self._describe_case)
        return super().validation_step(batch)

    def save_checkpoint(self, filename: str) -> None:
        """As in nnU-Net, where the error on a full disk is PyTorch's "[enforce fail at inline_container.cc ...]", and
        weights that the last step has spoiled replace sound ones.

        Raises:
            NotFiniteError: if the weights have NaN or infinite values.
            OSError: if the file cannot be written.
        """
        check_weights(self.network, "the loss was finite, but not the gradients")
        try:
            super().save_checkpoint(filename)
        except (RuntimeError, OSError) as error:
            reason, _, _ = str(error).partition("\n")
            free_mib = shutil.disk_usage(self.output_folder).free / 2**20
            raise OSError(
                f"cannot save {filename} ({free_mib:.0f} MiB are free there): {reason}. Make room; --c continues from "
                "the last checkpoint that was saved"
            ) from error

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        try:
            super().load_checkpoint(filename_or_checkpoint)
        except (OtherArchitectureError, OtherRecipeError) as error:
            raise type(error)(f"{filename_or_checkpoint}: {error}") from None
        except KeyError as error:
            if error.args[0] not in STATE_OF_A_TRAINING:
                raise
            raise NoTrainingStateError(filename_or_checkpoint) from error

    def _splits_file(self) -> str:
        return os.path.join(self.preprocessed_dataset_folder_base, "splits_final.json")

    def _describe_case(self, case: str) -> str:
        """A case with non-finite values, and whether they are already in its preprocessed image."""
        dataset = self.dataset_class(
            self.preprocessed_dataset_folder, [case], self.folder_with_segs_from_previous_stage
        )
        image = dataset.load_case(case)[0][:]
        count = np.count_nonzero(~np.isfinite(image))
        if count == 0:
            return f"{case}, whose preprocessed image is finite: the augmentation made them"
        return f"{case}, {count} of {image.size} voxels in {os.path.join(self.preprocessed_dataset_folder, case)}"


def check_plans(plans: dict, configuration: str, dataset_json: dict) -> None:
    """Check plans and dataset.json before nnU-Net's constructor reads them.

    Raises: ValueError: if this nnU-Net cannot train with them.
    """
    dataset = plans.get("dataset_name", "the data set")
    name = f"the plans {plans['plans_name']!r}" if "plans_name" in plans else "the plans"
    for what, faults in (
        (name, faults_of_plans(plans, configuration)),
        ("dataset.json", faults_of_dataset_json(dataset_json)),
    ):
        if faults:
            raise ValueError(
                f"{what} of {dataset} cannot be trained with: {'; '.join(faults)}. If another version of nnU-Net made "
                f"them, or they were edited, make them again: {plan_again(dataset)}"
            )

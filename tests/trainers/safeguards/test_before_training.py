"""Faults of plans, preprocessed data and patches: reported before the training begins."""

from __future__ import annotations

import json

import pytest
import torch
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_lightm.networks import LightMUNet
from nnunetv2_lightm.trainers import find_trainer
from nnunetv2_lightm.trainers.safeguards import SMALLEST_AXIS_VOXELS

PREPROCESS = "nnUNetv2_plan_and_preprocess -d 801 --verify_dataset_integrity"


def test_missing_plans_are_named(dataset):
    """By nnU-Net itself: it reads them before it makes a trainer."""
    (dataset.base / "nnUNetPlans.json").unlink()
    with pytest.raises(FileNotFoundError, match=str(dataset.base / "nnUNetPlans.json")):
        dataset.trainer()


def test_a_missing_dataset_json_is_named(dataset):
    (dataset.base / "dataset.json").unlink()
    with pytest.raises(FileNotFoundError, match=str(dataset.base / "dataset.json")):
        dataset.trainer()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda plans: plans.update(plans_per_stage={}), "plans of nnU-Net v1"),
        (lambda plans: plans["configurations"]["3d_fullres"].pop("batch_dice"), "lacks batch_dice"),
        (lambda plans: plans["configurations"]["3d_fullres"].pop("architecture"), "lacks architecture"),
        (lambda plans: plans.pop("configurations"), "lack configurations"),
    ],
)
def test_plans_of_another_nnunet_are_refused(dataset, change, said):
    dataset.change("nnUNetPlans.json", change)
    with pytest.raises(ValueError, match=f"plans 'nnUNetPlans' of Dataset801_LiTS .*{said}.*{PREPROCESS}"):
        dataset.trainer()
    assert list(dataset.results.iterdir()) == [], "refused before anything is written"


def test_plans_in_the_old_form_of_nnunet_2_are_taken(dataset):
    """nnU-Net 2.1's: it still reads them, and so do we."""

    def to_old_form(plans):
        configuration = plans["configurations"]["3d_fullres"]
        arguments = configuration.pop("architecture")["arch_kwargs"]
        configuration.update(
            UNet_class_name="PlainConvUNet",
            UNet_base_num_features=4,
            unet_max_num_features=8,
            num_pool_per_axis=[2, 3, 3],
            pool_op_kernel_sizes=arguments["strides"],
            conv_kernel_sizes=arguments["kernel_sizes"],
            n_conv_per_stage_encoder=[1] * 4,
            n_conv_per_stage_decoder=[1] * 3,
        )

    today = dataset.trainer()
    dataset.change("nnUNetPlans.json", to_old_form)
    with pytest.warns(UserWarning, match="old nnU-Net plans format"):
        trainer = dataset.trainer()
    trainer.initialize()
    assert trainer.configuration_manager.pool_op_kernel_sizes == today.configuration_manager.pool_op_kernel_sizes
    assert [list(block.stride) for block in trainer.network.encoder] == [[1, 2, 2], [2, 2, 2], [2, 2, 2]]


def test_a_fingerprint_with_nan_is_refused(dataset):
    intensities = {"0": {"mean": float("nan"), "std": 1.0}}
    dataset.change(
        "nnUNetPlans.json", lambda plans: plans.update(foreground_intensity_properties_per_channel=intensities)
    )
    with pytest.raises(ValueError, match="intensities of channel 0 are NaN or infinite"):
        dataset.trainer()


def test_a_dataset_json_without_labels_is_refused(dataset):
    dataset.change("dataset.json", lambda content: content.pop("labels"))
    with pytest.raises(ValueError, match="dataset.json of Dataset801_LiTS cannot be trained with: it lacks labels"):
        dataset.trainer()


@pytest.mark.parametrize("state", ["missing", "empty"])
def test_data_that_are_not_preprocessed_are_named(dataset, state):
    for path in dataset.folder.iterdir():
        path.unlink()
    if state == "missing":
        dataset.folder.rmdir()
    trainer = dataset.trainer()
    with pytest.raises(FileNotFoundError, match=f"{dataset.folder} holds no preprocessed cases.*{PREPROCESS}"):
        trainer.run_training()


@pytest.mark.parametrize(
    "lost",
    [
        "nnUNetPlans_3d_fullres/case_a.b2nd",
        "nnUNetPlans_3d_fullres/case_b_seg.b2nd",
        "nnUNetPlans_3d_fullres/case_c.pkl",
        "gt_segmentations/case_c.nii.gz",
    ],
)
def test_a_missing_file_of_a_case_is_named(dataset, lost):
    """nnU-Net meets the first three when chance draws the case, and the last one after the training."""
    (dataset.base / lost).unlink()
    with pytest.raises(FileNotFoundError, match="1 files of the cases of fold 0 are missing") as error:
        dataset.trainer().on_train_start()
    assert str(dataset.base / lost) in str(error.value)
    assert PREPROCESS in str(error.value)


def test_a_split_with_cases_that_are_not_there_is_named(dataset):
    dataset.write("splits_final.json", [{"train": ["case_a", *(f"other_{n}" for n in range(9))], "val": ["case_c"]}])
    with pytest.raises(FileNotFoundError, match="36 files .*(?s:.)*other_0.*(?s:.)*and 31 more") as error:
        dataset.trainer().on_train_start()
    assert "splits_final.json" in str(error.value)


@pytest.mark.parametrize("empty", ["train", "val"])
def test_an_empty_split_is_named(dataset, empty):
    dataset.change("splits_final.json", lambda splits: splits[0].update({empty: []}))
    with pytest.raises(ValueError, match="fold 0 has no case for (training|validation).*splits_final.json"):
        dataset.trainer().on_train_start()


@pytest.mark.parametrize("patch_size", [[3, 8, 8], [8, 2, 8], [1, 16, 16], [1, 1, 1]])
def test_a_patch_too_small_for_the_augmentation_is_refused(dataset, patch_size):
    dataset.change_configuration(patch_size=patch_size)
    with pytest.raises(ValueError, match="is too small for nnU-Net's augmentation") as error:
        dataset.trainer().on_train_start()
    assert str(tuple(patch_size)) in str(error.value)


def test_the_smallest_axis_is_that_of_the_widest_blur():
    """nnU-Net draws sigmas from 0.5 to 1; the largest one has the widest kernel."""
    blur = GaussianBlurTransform(blur_sigma=1.0)
    assert blur(image=torch.zeros(1, *[SMALLEST_AXIS_VOXELS] * 3))["image"].isfinite().all()
    with pytest.raises(RuntimeError, match="[Pp]adding"):
        blur(image=torch.zeros(1, SMALLEST_AXIS_VOXELS - 1, 8, 8))


@pytest.mark.parametrize("patch_size", [[4, 16, 16], [4, 4, 4]])
def test_the_smallest_patches_are_trained(dataset, patch_size):
    dataset.change_configuration(patch_size=patch_size)
    trainer = dataset.trainer()
    trainer.on_train_start()
    batch = next(trainer.dataloader_train)
    assert list(batch["data"].shape[2:]) == patch_size
    assert trainer.train_step(batch)["loss"] < 10


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 3, 1), (1, 16, 2), (3, 3), (1, 1)])
def test_the_network_takes_axes_of_any_length(size):
    """In prediction no augmentation stands in the way."""
    network = LightMUNet(1, 2, spatial_dims=len(size), features=16)
    image = torch.randn(1, 1, *size)
    logits = network(image)
    assert logits.shape == (1, 2, *size)
    logits.square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


def test_the_plans_for_prediction_are_not_checked_twice(dataset):
    """A model folder's plans may have been edited: what prediction does not need is not asked for."""
    content = json.loads((dataset.base / "nnUNetPlans.json").read_text())
    del content["configurations"]["3d_fullres"]["batch_dice"]
    manager = PlansManager(content)
    trainer = find_trainer("nnUNetTrainerLightMUNet")
    assert trainer.build_network_architecture(manager, manager.get_configuration("3d_fullres"), 1, 3, False)

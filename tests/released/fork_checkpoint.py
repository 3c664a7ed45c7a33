"""Checkpoints as nnU-Net 2.1.1 with the authors' fork writes them."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import torch

from nnunetv2_lightm.networks import LightMUNetReleased

DATASET_JSON = {
    "channel_names": {"0": "MRI"},
    "labels": {"background": 0, "anterior": 1, "posterior": 2},
    "numTraining": 4,
    "file_ending": ".nii.gz",
}
PATCH_SIZES = {"2d": [16, 24], "3d_fullres": [16, 16, 16], "3d_lowres": [16, 16, 16]}


def old_configuration(name):
    """A configuration of nnU-Net 2.1.1: the architecture is spread over it."""
    dims = len(PATCH_SIZES[name])
    kwargs = {"order_z": 0, "force_separate_z": None}
    return {
        "data_identifier": f"nnUNetPlans_{name}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": PATCH_SIZES[name],
        "median_image_size_in_voxels": [16.0] * dims,
        "spacing": [1.0] * dims,
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 32,
        "n_conv_per_stage_encoder": [2, 2, 2],
        "n_conv_per_stage_decoder": [2, 2],
        "num_pool_per_axis": [2] * dims,
        "pool_op_kernel_sizes": [[1] * dims, [2] * dims, [2] * dims],
        "conv_kernel_sizes": [[3] * dims] * 3,
        "unet_max_num_features": 320,
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, **kwargs},
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, **kwargs},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, **kwargs},
        "batch_dice": True,
    }


def old_plans():
    statistics = dict.fromkeys(["max", "mean", "median", "min", "percentile_00_5", "percentile_99_5", "std"], 1.0)
    return {
        "dataset_name": "Dataset004_Hippocampus",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "original_median_shape_after_transp": [16, 16, 16],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {
            **{name: old_configuration(name) for name in PATCH_SIZES},
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
            "3d_small_batch": {"inherits_from": "3d_fullres", "batch_size": 1},
        },
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": statistics},
    }


def network_of(revision="head", configuration="3d_fullres", dataset_json=DATASET_JSON):
    """At full size, as the fork builds it."""
    channels = len(dataset_json["channel_names"])
    dims = 2 if configuration == "2d" else 3
    if configuration == "3d_cascade_fullres":
        channels += len(dataset_json["labels"]) - 1
    torch.manual_seed(0)
    return LightMUNetReleased(channels, len(dataset_json["labels"]), spatial_dims=dims, revision=revision)


def fork_checkpoint(weights, configuration="3d_fullres", fold=0, **changes):
    """What nnUNetTrainer.save_checkpoint of 2.1.1 puts together; the optimiser has the state of one parameter."""
    dims = 2 if configuration == "2d" else 3
    first = next(iter(weights.values()))
    moments = {"step": torch.tensor(3.0), "exp_avg": torch.zeros_like(first), "exp_avg_sq": torch.zeros_like(first)}
    group = {"lr": 1e-4, "betas": (0.9, 0.999), "eps": 1e-5, "weight_decay": 1e-5, "params": [0]}
    return {
        "network_weights": weights,
        "optimizer_state": {"state": {0: moments}, "param_groups": [group]},
        "grad_scaler_state": None,
        "logging": {
            "mean_fg_dice": [np.float64(0.5)],
            "ema_fg_dice": [np.float64(0.5)],
            "dice_per_class_or_region": [[np.float64(0.5), np.float64(0.5)]],
            "train_losses": [np.float32(0.1)],
            "val_losses": [np.float32(0.1)],
            "lrs": [1e-4],
            "epoch_start_timestamps": [1700000000.0],
            "epoch_end_timestamps": [1700000100.0],
        },
        "_best_ema": np.float64(0.5),
        "current_epoch": 100,
        "init_args": {
            "plans": old_plans(),
            "configuration": configuration,
            "fold": fold,
            "dataset_json": deepcopy(DATASET_JSON),
            "unpack_dataset": True,
            "device": torch.device("cuda", 0),
        },
        "trainer_name": "nnUNetTrainerLightMUNet",
        "inference_allowed_mirroring_axes": tuple(range(dims)),
        **changes,
    }


def without_values(network):
    """The state dict with one stored number a parameter, so that the file is small."""
    return {name: torch.zeros(1).expand(tensor.shape) for name, tensor in network.state_dict().items()}

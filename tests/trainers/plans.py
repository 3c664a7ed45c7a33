"""The parts of plans and dataset.json that a trainer reads, for tiny images."""

from __future__ import annotations

STRIDES = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]]
DATASET_JSON = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "liver": 1, "tumor": 2},
    "file_ending": ".nii.gz",
}


def make_plans(batch_size=2):
    """Plans with the configurations 3d_fullres, patch 8x16x16, and 2d, patch 16x24."""
    return {
        "dataset_name": "Dataset801_LiTS",
        "plans_name": "nnUNetPlans",
        "label_manager": "LabelManager",
        "configurations": {
            "3d_fullres": _configuration("3d_fullres", [8, 16, 16], STRIDES, batch_size),
            "2d": _configuration("2d", [16, 24], [stride[1:] for stride in STRIDES], batch_size),
        },
        "continue_training": False,
    }


def _configuration(name, patch_size, strides, batch_size):
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
        "batch_size": batch_size,
        "spacing": [2.0, 1.0, 1.0][-dims:],
        "batch_dice": True,
        "architecture": architecture,
    }

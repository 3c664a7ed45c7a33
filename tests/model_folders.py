"""Model folders as nnU-Net leaves them, with drawn weights: a training takes a minute and adds nothing to the export.

The logits of a drawn network are brought to mean 0 and a large deviation, so that every label occurs and two logits
seldom lie close together.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from nnunetv2_lightm import LightMUNet

TRAINER = "nnUNetTrainerLightMUNet"
LABELS = {"background": 0, "organ": 1, "lesion": 2}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "active": [3]}
RESAMPLING = "resample_data_or_seg_to_shape"
# Settings of plans that take slices for thick earlier than nnU-Net's own do.
OWN_THRESHOLD = {
    f"resampling_fn_{of}_kwargs": {
        **{"is_seg": False, "order": order, "order_z": 0, "force_separate_z": None},
        "separate_z_anisotropy_threshold": 1.5,
    }
    for of, order in (("data", 3), ("probabilities", 1))
}
CT = {
    "mean": 40.0,
    "std": 55.0,
    "percentile_00_5": -120.0,
    "percentile_99_5": 210.0,
    "min": -1000.0,
    "max": 1500.0,
    "median": 40.0,
}


def write_model_folder(
    folder: Path,
    *,
    configuration: str = "3d_fullres",
    patch_size: Sequence[int] = (16, 24, 24),
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    strides: Sequence[Sequence[int]] | None = None,
    transpose: Sequence[int] = (0, 1, 2),
    schemes: Sequence[str] = ("ZScoreNormalization",),
    use_mask: bool = False,
    labels: dict = LABELS,
    regions_class_order: Sequence[int] | None = None,
    folds: Sequence[int | str] = (0,),
    mirroring_axes: Sequence[int] | None = None,
    reader: str = "SimpleITKIO",
    file_ending: str = ".nii.gz",
    trainer: str = TRAINER,
    settings: dict | None = None,
    plans: dict | None = None,
    architecture: dict | None = None,
) -> Path:
    """Write plans.json, dataset.json and a checkpoint for each fold; ``settings`` and ``plans`` change nnU-Net's."""
    dims = len(patch_size)
    strides = strides or [[1] * dims] + [[2] * dims] * 3
    planned = {
        "data_identifier": f"nnUNetPlans_{configuration}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch_size),
        "spacing": list(spacing),
        "normalization_schemes": list(schemes),
        "use_mask_for_norm": [use_mask] * len(schemes),
        "resampling_fn_data": RESAMPLING,
        "resampling_fn_seg": RESAMPLING,
        "resampling_fn_probabilities": RESAMPLING,
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
        "architecture": architecture
        or {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {"strides": strides},
            "_kw_requires_import": [],
        },
        **(settings or {}),
    }
    plans_json = {
        "dataset_name": "Dataset901_Drawn",
        "plans_name": "nnUNetPlans",
        "transpose_forward": list(transpose),
        "transpose_backward": [list(transpose).index(axis) for axis in range(3)],
        "image_reader_writer": reader,
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(i): CT for i in range(len(schemes))},
        "configurations": {configuration: planned},
        **(plans or {}),
    }
    dataset_json = {
        "channel_names": {str(i): f"channel {i}" for i in range(len(schemes))},
        "labels": labels,
        "file_ending": file_ending,
        "numTraining": 3,
    }
    if regions_class_order is not None:
        dataset_json["regions_class_order"] = list(regions_class_order)
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans_json))
    (folder / "dataset.json").write_text(json.dumps(dataset_json))
    axes = tuple(range(dims)) if mirroring_axes is None else tuple(mirroring_axes) or None
    for seed, fold in enumerate(folds):
        weights = _weights(plans_json, configuration, dataset_json, trainer, seed)
        content = {
            "network_weights": weights,
            "trainer_name": trainer,
            "init_args": {
                "plans": plans_json,
                "configuration": configuration,
                "fold": fold,
                "dataset_json": dataset_json,
            },
            "inference_allowed_mirroring_axes": axes,
        }
        (folder / f"fold_{fold}").mkdir()
        torch.save(content, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder


def make_float16_too_coarse(folder: Path, fold: int | str) -> None:
    """Make a fold's labels depend on differences of weights that float16 has not; other folds have its numbers."""
    for path in folder.glob("fold_*/checkpoint_final.pth"):
        content = torch.load(path)
        weights = content["network_weights"]
        if path.parent.name == f"fold_{fold}":
            head = "decoder.seg_layers.0.pointwise"
            weights[f"{head}.weight"] = weights[f"{head}.weight"][:1] + 1e-4 * weights[f"{head}.weight"]
            weights[f"{head}.bias"] *= 1e-4
        else:
            content["network_weights"] = {name: tensor.half().float() for name, tensor in weights.items()}
        torch.save(content, path)


def stock_network(dims: int) -> dict:
    """nnU-Net's PlainConvUNet, small."""
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            **{"n_stages": 3, "features_per_stage": [8, 16, 16], "kernel_sizes": [[3] * dims] * 3},
            **{"strides": [[1] * dims, [2] * dims, [2] * dims], "n_conv_per_stage": [1] * 3},
            **{"n_conv_per_stage_decoder": [1] * 2, "conv_bias": True, "dropout_op": None, "dropout_op_kwargs": None},
            "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
            **{"norm_op_kwargs": {"eps": 1e-5, "affine": True}, "nonlin": "torch.nn.LeakyReLU"},
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def _weights(plans_json: dict, configuration: str, dataset_json: dict, trainer: str, seed: int) -> dict:
    manager = PlansManager(json.loads(json.dumps(plans_json)))
    settings = manager.get_configuration(configuration)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = recursive_find_trainer_class_by_name(trainer).build_network_architecture(
            manager,
            settings,
            determine_num_input_channels(manager, settings, dataset_json),
            manager.get_label_manager(dataset_json).num_segmentation_heads,
            enable_deep_supervision=False,
        )
        weights = network.state_dict()
        for name, tensor in weights.items():
            # Norms, scales and D are 1 and biases 0 at the start, where a mistake with them would not show.
            if tensor.ndim == 1 and not name.endswith("dt_proj.bias"):
                tensor.add_(0.1 * torch.randn_like(tensor))
        channels = determine_num_input_channels(manager, settings, dataset_json)
        _spread_logits(network.eval(), torch.randn(1, channels, *settings.patch_size))
    return network.state_dict()


@torch.no_grad()
def _spread_logits(network: nn.Module, image: torch.Tensor, deviation: float = 8.0) -> None:
    logits = network(image)[0].flatten(1)
    scale = deviation / logits.std(1)
    head = _head(network, image)
    if head.bias is not None:
        head.bias.copy_((head.bias - logits.mean(1)) * scale)
    head.weight.mul_(scale.reshape(-1, *[1] * (head.weight.ndim - 1)))


def _head(network: nn.Module, image: torch.Tensor) -> nn.Module:
    """The layer that makes the logits: the last one that is called."""
    if isinstance(network, LightMUNet):  # part of an operator
        return network.decoder.seg_layers[0].pointwise
    called = []
    hooks = [
        module.register_forward_hook(lambda module, *_: called.append(module))
        for module in network.modules()
        if isinstance(module, (nn.Conv2d, nn.Conv3d))
    ]
    network(image)
    for hook in hooks:
        hook.remove()
    return called[-1]

"""What nnU-Net does around the network, as plain JSON: docs/bundle.md describes every key."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Any

from nnunetv2.configuration import ANISO_THRESHOLD
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from ..dataset_json import channel_names_of
from ..nnunet_faults import INTENSITIES
from .errors import ExportError
from .model_folder import TrainedModel

VERSION = 2
SCHEMES = (
    "ZScoreNormalization",
    "CTNormalization",
    "NoNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
)
READERS = (
    "SimpleITKIO",
    "SimpleITKIOWithReorient",
    "NibabelIO",
    "NibabelIOWithReorient",
    "NaturalImage2DIO",
    "Tiff3DIO",
)
# What nnU-Net's readers read; the engine names its segmentations so, too.
ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".gipl", ".png", ".bmp", ".tif", ".tiff")
STATISTICS = ("mean", "std", "percentile_00_5", "percentile_99_5")
STEP, GAUSSIAN_SIGMA = 0.5, 0.125  # defaults of nnUNetv2_predict and of compute_gaussian
CITATIONS = (
    "Liao et al.: LightM-UNet: Mamba Assists in Lightweight UNet for Medical Image Segmentation. arXiv:2403.05246",
    "Isensee et al.: nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation. "
    "Nature Methods 18, 203-211, 2021",
)


def describe_pipeline(model: TrainedModel) -> dict[str, Any]:
    """Everything between an image file and its labels, except the network.

    Raises:
        ExportError: naming the step, if nnU-Net does one that is not among those that the runtime can do.
    """
    settings, plans = model.settings, model.plans
    _refuse_other_classes(model)
    return {
        "created_by": f"nnunetv2-lightm {version('nnunetv2-lightm')}",
        "name": f"{plans.dataset_name} {model.configuration} {model.trainer}",
        "input": {
            "channels": _channels(model),
            "reader": _reader(model),
            "file_ending": _file_ending(model),
        },
        "preprocessing": {
            "transpose_forward": [int(axis) for axis in plans.transpose_forward],
            "spacing_mm": [float(spacing) for spacing in settings.spacing],
            "resampling_data": _resampling(model, "data", orders=(0, 1, 3)),
            "resampling_logits": _resampling(model, "probabilities", orders=(0, 1)),
        },
        "inference": {
            "patch_size": [int(size) for size in settings.patch_size],
            "step": STEP,
            "gaussian_sigma": GAUSSIAN_SIGMA,
            "mirroring_axes": [int(axis) for axis in model.mirroring_axes],
        },
        "output": _output(model),
        "source": {
            "dataset": plans.dataset_name,
            "plans": plans.plans_name,
            "configuration": model.configuration,
            "trainer": model.trainer,
            "checkpoint": model.checkpoint,
            "sha256": model.sha256,
        },
        "licence": _text(model, "licence", "license"),
        "citation": [*CITATIONS, *filter(None, [_text(model, "reference")])],
        "intended_use": "research only",
    }


def _refuse_other_classes(model: TrainedModel) -> None:
    preprocessor = model.settings.preprocessor_class
    if preprocessor is not DefaultPreprocessor:
        raise ExportError(
            f"{model.folder}: is preprocessed by {preprocessor.__name__}; only DefaultPreprocessor is known"
        )
    if type(model.labels) is not LabelManager:
        raise ExportError(
            f"{model.folder}: its label manager is {type(model.labels).__name__}; only LabelManager is known"
        )


def _reader(model: TrainedModel) -> str:
    name = model.plans.image_reader_writer_class.__name__
    if name not in READERS:
        raise ExportError(f"{model.folder}: its images are read by {name}; known are {', '.join(READERS)}")
    return name


def _file_ending(model: TrainedModel) -> str:
    ending = model.dataset_json["file_ending"]
    if ending not in ENDINGS:
        raise ExportError(
            f"{model.folder / 'dataset.json'}: the images end with {ending!r:.60}; known are {', '.join(ENDINGS)}"
        )
    return ending


def _channels(model: TrainedModel) -> list[dict[str, Any]]:
    names = channel_names_of(model.dataset_json)
    schemes, masks = model.settings.normalization_schemes, model.settings.use_mask_for_norm
    if not len(schemes) == len(masks) == len(names) == model.input_channels:
        raise ExportError(
            f"{model.folder / 'plans.json'}: has {len(schemes)} normalization_schemes and {len(masks)} "
            f"use_mask_for_norm; one for each of the {len(names)} channels of dataset.json is needed"
        )
    channels = []
    for i, (scheme, use_mask) in enumerate(zip(schemes, masks, strict=True)):
        if scheme not in SCHEMES:
            raise ExportError(f"{model.folder}: channel {i} is normalised by {scheme}; known are {', '.join(SCHEMES)}")
        channels.append(
            {
                "name": str(names.get(str(i), i)),
                "scheme": scheme,
                "use_mask": bool(use_mask),
                "statistics": _statistics(model, i) if scheme == "CTNormalization" else None,
            }
        )
    return channels


def _statistics(model: TrainedModel, channel: int) -> dict[str, float]:
    channels = next((model.plans.plans[key] for key in INTENSITIES if key in model.plans.plans), None)
    properties = channels.get(str(channel)) if isinstance(channels, dict) else None
    values = {key: properties.get(key) if isinstance(properties, dict) else None for key in STATISTICS}
    if not all(map(_is_number, values.values())):
        raise ExportError(
            f"{model.folder / 'plans.json'}: channel {channel} is normalised by CTNormalization, and its intensities "
            f"are {properties!r:.60}; finite {', '.join(STATISTICS)} are needed, as nnU-Net's planning writes them"
        )
    return {key: float(value) for key, value in values.items()}


def _resampling(model: TrainedModel, of: str, orders: tuple[int, ...]) -> dict[str, Any]:
    """nnU-Net's keyword arguments of the function, which plans name."""
    function = model.settings.configuration[f"resampling_fn_{of}"]
    arguments = model.settings.configuration[f"resampling_fn_{of}_kwargs"]
    if function != resample_data_or_seg_to_shape.__name__:
        raise ExportError(
            f"{model.folder}: its plans resample {of} by {function}; only resample_data_or_seg_to_shape is known"
        )
    defaults = {"order": 3, "order_z": 0, "force_separate_z": False, "separate_z_anisotropy_threshold": ANISO_THRESHOLD}
    options = {"is_seg": False, **defaults, **arguments}
    known = {
        "is_seg": (False,),
        "order": orders,
        "order_z": orders,
        "force_separate_z": (True, False, None),
        "separate_z_anisotropy_threshold": "a number above 0",
    }
    for key, value in options.items():
        if not _is_known(value, known.get(key, ())):
            raise ExportError(
                f"{model.folder}: its plans resample {of} with {key}={value!r:.60}; known are "
                + (f"{known[key]}" if key in known else ", ".join(known))
            )
    return {
        **{key: options[key] for key in ("order", "order_z", "force_separate_z")},
        "anisotropy_threshold": float(options["separate_z_anisotropy_threshold"]),
    }


def _is_known(value: Any, known: tuple[Any, ...] | str) -> bool:
    """Whether the value is among those known; a text stands for numbers above 0. True is no 1 here."""
    if isinstance(known, str):
        return _is_number(value) and value > 0
    return any(value == one and type(value) is type(one) for one in known)


def _is_number(value: Any) -> bool:
    """Whether it is a finite number that a float holds; an integer of JSON may be larger than any."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _output(model: TrainedModel) -> dict[str, Any]:
    """Labels by name; with regions, what each of them is made of and the label that it writes."""
    names = {name: value for name, value in model.dataset_json["labels"].items() if name != "ignore"}
    order = model.dataset_json.get("regions_class_order") if model.labels.has_regions else None
    return {
        "labels": {
            name: [int(v) for v in value] if isinstance(value, (list, tuple)) else int(value)
            for name, value in names.items()
        },
        "regions_class_order": [int(label) for label in order] if order else None,
        "num_classes": model.labels.num_segmentation_heads,
    }


def _text(model: TrainedModel, *keys: str) -> str | None:
    return next((str(model.dataset_json[key]) for key in keys if model.dataset_json.get(key)), None)

"""What is wrong with nnU-Net's files: plans and dataset.json, the files of each case.

Standard library only: trainers check before they begin, and the doctor even where torch or nnunetv2 is broken.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .dataset_json import channel_names_of, is_file_ending, label_values
from .escaping import shell_line
from .nnunet import dataset_id

# What a training reads from a plans file.
PLANS_KEYS = ("dataset_name", "plans_name", "configurations")
CONFIGURATION_KEYS = ("data_identifier", "patch_size", "batch_size", "batch_dice")
# Older versions of nnU-Net 2 described their network by these; nnU-Net translates them into "architecture".
OLD_ARCHITECTURE_KEYS = (
    "UNet_class_name",
    "UNet_base_num_features",
    "unet_max_num_features",
    "num_pool_per_axis",
    "pool_op_kernel_sizes",
    "conv_kernel_sizes",
    "n_conv_per_stage_encoder",
    "n_conv_per_stage_decoder",
)
DATASET_KEYS = ("labels", "file_ending")
# What nnU-Net's planner reads from a fingerprint.
PER_CASE = ("spacings", "shapes_after_crop")
RELATIVE_SIZE = "median_relative_size_after_cropping"
INTENSITIES = ("foreground_intensity_properties_per_channel", "foreground_intensity_properties_by_modality")
FINGERPRINT_KEYS = (*PER_CASE, INTENSITIES[0], RELATIVE_SIZE)


def plan_again(dataset: str, *configurations: str) -> str:
    """The command that plans and preprocesses a data set again, all of it or some configurations.

    Args:
        dataset: Its name (`Dataset801_LiTS`) or id.
        configurations: E.g. "3d_fullres".
    """
    try:
        number: int | str = int(dataset) if dataset.isdecimal() else dataset_id(dataset)
    except ValueError:
        number = "ID"
    command = ("nnUNetv2_plan_and_preprocess", "-d", number, "--verify_dataset_integrity")
    return shell_line(*command, *(("-c", *configurations) if configurations else ()))


def faults_of_plans(plans: Any, configuration: str) -> list[str]:
    """Why a configuration of the plans cannot be trained; empty if it can."""
    if not isinstance(plans, dict) or not isinstance(plans.get("configurations", {}), dict):
        return [f"they are a {type(plans).__name__}; expected a mapping with the configurations"]
    if "plans_per_stage" in plans:
        return ["they are plans of nnU-Net v1"]
    if missing := [key for key in PLANS_KEYS if key not in plans]:
        return [f"they lack {', '.join(missing)}"]
    if configuration not in plans["configurations"]:
        return [f"they have no configuration {configuration!r}, only {', '.join(plans['configurations'])}"]
    resolved = resolved_configuration(plans, configuration)
    faults = [*_missing_keys(resolved), *_unfit_sizes(resolved)]
    not_finite = [
        channel
        for key in INTENSITIES
        for channel, properties in plans.get(key, {}).items()
        if not all(math.isfinite(value) for value in properties.values())
    ]
    if not_finite:
        faults.append(
            f"the intensities of channel {', '.join(not_finite)} are NaN or infinite, because those of an image are: "
            "it would spoil every case that is normalised by them"
        )
    return faults


def faults_of_dataset_json(dataset_json: Any, keys: Sequence[str] = DATASET_KEYS) -> list[str]:
    """Why dataset.json cannot be used; empty if it can.

    Args:
        dataset_json: Its content.
        keys: What is needed of it besides `channel_names`; by default, what a training reads.
    """
    if not isinstance(dataset_json, dict):
        return [f"it is a {type(dataset_json).__name__}; expected a mapping"]
    missing = [key for key in keys if key not in dataset_json]
    if not {"channel_names", "modality"} & dataset_json.keys():
        missing.append("channel_names")
    if missing:
        return [f"it lacks {', '.join(missing)}"]
    return (
        faults_of_channel_names(channel_names_of(dataset_json))
        + faults_of_labels(dataset_json["labels"])
        + faults_of_file_ending(dataset_json["file_ending"])
        + faults_of_reader(dataset_json)
        + faults_of_list(dataset_json)
    )


def faults_of_channel_names(names: Any) -> list[str]:
    """What is wrong with dataset.json's `channel_names`: nnU-Net goes by their order, whatever their numbers say."""
    if not isinstance(names, dict) or not names:
        return [f'channel_names is {names!r:.60}; expected a mapping of "0", "1", ... to names']
    if list(map(str, names)) != [str(number) for number in range(len(names))]:
        given = ", ".join(f"{number}: {name}" for number, name in names.items())
        return [f"channel_names has the channels {given}; they must be numbered 0, 1, ... in this order"]
    return []


def faults_of_labels(labels: Any) -> list[str]:
    """What is wrong with dataset.json's `labels`: each name has a whole number from 0, or a list of such."""
    if not isinstance(labels, dict):
        return [f"labels is {labels!r:.60}; expected a mapping of names to whole numbers"]
    return [
        f"labels: {name!r} is {value!r:.60}; dataset.json maps a name to a whole number from 0, or to a list of them"
        for name, value in labels.items()
        if label_values(value) is None
    ]


def faults_of_file_ending(ending: Any) -> list[str]:
    """What is wrong with dataset.json's `file_ending`, which becomes a part of file names."""
    return [] if is_file_ending(ending) else [f"file_ending is {ending!r:.60}; expected one such as '.nii.gz'"]


def faults_of_reader(dataset_json: dict[str, Any]) -> list[str]:
    """What is wrong with dataset.json's `overwrite_image_reader_writer`, the name of one of nnU-Net's classes."""
    reader = dataset_json.get("overwrite_image_reader_writer")
    if reader is None or isinstance(reader, str):
        return []
    return [f"overwrite_image_reader_writer is {reader!r:.60}; expected the name of a reader such as 'SimpleITKIO'"]


def faults_of_list(dataset_json: dict[str, Any]) -> list[str]:
    """What is wrong with dataset.json's `dataset`, which names the files of each case wherever they lie."""
    listed = dataset_json.get("dataset", {})
    if not isinstance(listed, dict):
        return [f"dataset is {listed!r:.60}; expected a mapping of cases to their images and label"]
    return [
        f'dataset: {case!r} is {entry!r:.60}; expected {{"images": ["FILE", ...], "label": "FILE"}}'
        for case, entry in listed.items()
        if not _are_files(entry)
    ]


def _are_files(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(images := entry.get("images"), list) or not images:
        return False
    return all(isinstance(name, str) for name in (*images, entry.get("label")))


def faults_of_fingerprint(fingerprint: Any) -> list[str]:
    """What is wrong with dataset_fingerprint.json, as far as nnU-Net's planner reads it."""
    if not isinstance(fingerprint, dict):
        return [f"it is a {type(fingerprint).__name__}; expected a mapping"]
    if missing := [key for key in FINGERPRINT_KEYS if key not in fingerprint]:
        return [f"it lacks {', '.join(missing)}"]
    faults = [
        f"{key} is {fingerprint[key]!r:.60}; expected three positive numbers for each case"
        for key in PER_CASE
        if not _are_triples(fingerprint[key])
    ]
    if not faults and len({len(fingerprint[key]) for key in PER_CASE}) > 1:
        faults.append(f"{' and '.join(PER_CASE)} are of different numbers of cases")
    if not isinstance(fingerprint[INTENSITIES[0]], dict):
        faults.append(f"{INTENSITIES[0]} is {fingerprint[INTENSITIES[0]]!r:.60}; expected a mapping of channels")
    if not _is_length(fingerprint[RELATIVE_SIZE]):
        faults.append(f"{RELATIVE_SIZE} is {fingerprint[RELATIVE_SIZE]!r:.60}; expected a positive number")
    return faults


def faults_of_splits(splits: Any) -> list[str]:
    """What is wrong with splits_final.json: a list, for each fold the cases of `train` and `val`."""
    if not isinstance(splits, list):
        return [f"it is a {type(splits).__name__}; expected a list of folds"]
    return [
        f"fold {fold}: {part} is {split.get(part)!r:.60}; expected a list of cases"
        if isinstance(split, dict)
        else f"fold {fold} is {split!r:.60}; expected train and val"
        for fold, split in enumerate(splits)
        for part in ("train", "val")
        if not (isinstance(split, dict) and _are_texts(split.get(part)))
    ]


def resolved_configuration(plans: dict[str, Any], name: str) -> dict[str, Any]:
    """A configuration together with what it inherits; nnU-Net itself reports circular inheritance."""
    configurations = plans["configurations"]
    resolved, seen = dict(configurations[name]), {name}
    while (name := configurations.get(name, {}).get("inherits_from")) is not None and name not in seen:
        seen.add(name)
        resolved = {**configurations.get(name, {}), **resolved}
    return resolved


def preprocessed_cases(folder: Path) -> list[str]:
    """The cases that nnU-Net would find in the folder of a configuration."""
    names = os.listdir(folder)
    data = [name[:-5] for name in names if name.endswith(".b2nd") and not name.endswith("_seg.b2nd")]
    return sorted(data or [name[:-4] for name in names if name.endswith(".npz")])


def missing_files(
    folder: Path, cases: Sequence[str], *, ground_truth: tuple[Path, str], previous_stage: Path | None = None
) -> list[Path]:
    """The files that a training on these cases would miss.

    Args:
        folder: Folder of the configuration, with images, labels and properties.
        cases: Cases to train on or validate with.
        ground_truth: Folder of the original labels, and their file ending: the validation compares with them.
        previous_stage: Folder of the segmentations that a cascade starts from.
    """
    present = _names(folder)
    packed = not any(name.endswith(".b2nd") for name in present)
    missing = []
    for case in cases:
        if not packed:
            needed = [f"{case}.b2nd", f"{case}_seg.b2nd"]
        else:
            needed = [] if {f"{case}.npy", f"{case}_seg.npy"} <= present else [f"{case}.npz"]
        missing += [folder / name for name in (*needed, f"{case}.pkl") if name not in present]
    for place, ending in (ground_truth, (previous_stage, ".npz" if packed else ".b2nd")):
        if place is not None:
            there = _names(place)
            missing += [place / (case + ending) for case in cases if case + ending not in there]
    return missing


def _are_triples(values: Any) -> bool:
    return (
        isinstance(values, list)
        and bool(values)
        and all(isinstance(one, list) and len(one) == 3 and all(map(_is_length, one)) for one in values)
    )


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _names(folder: Path) -> set[str]:
    return set(os.listdir(folder)) if folder.is_dir() else set()


def _missing_keys(configuration: dict[str, Any]) -> list[str]:
    missing = [key for key in CONFIGURATION_KEYS if key not in configuration]
    if "architecture" in configuration:
        if "strides" not in configuration["architecture"].get("arch_kwargs", {}):
            missing.append("architecture.arch_kwargs.strides")
    elif old := [key for key in OLD_ARCHITECTURE_KEYS if key not in configuration]:
        missing.append("architecture")
        if len(old) < len(OLD_ARCHITECTURE_KEYS):
            missing[-1] += f" (in the old form: {', '.join(old)})"
    return [f"the configuration lacks {', '.join(missing)}"] if missing else []


def _is_size(value: Any) -> bool:
    """nnU-Net's planner may write a whole number as 128.0."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value // 1 and value >= 1


def _unfit_sizes(configuration: dict[str, Any]) -> list[str]:
    faults = []
    patch_size, batch_size = configuration.get("patch_size", (1, 1)), configuration.get("batch_size", 1)
    if not isinstance(patch_size, (list, tuple)) or len(patch_size) not in (2, 3) or not all(map(_is_size, patch_size)):
        faults.append(f"patch_size is {patch_size!r:.60}; 2 or 3 whole numbers of voxels are needed")
    if not _is_size(batch_size):
        faults.append(f"batch_size is {batch_size!r:.60}; at least 1 is needed")
    spacing_mm = configuration.get("spacing", (1, 1, 1))
    if not isinstance(spacing_mm, (list, tuple)) or not all(map(_is_length, spacing_mm)):
        faults.append(f"spacing is {spacing_mm!r:.60}; lengths in mm are needed")
    return faults


def _is_length(value: Any) -> bool:
    """False for NaN too."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf

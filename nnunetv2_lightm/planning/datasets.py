"""Plans a data set from its raw folder, after checking that nnU-Net's planner will find what it needs."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nnunetv2.configuration import default_num_processes
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiment_dataset
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from ..dataset_json import channel_names_of
from ..nnunet import NotFound, dataset_id, find_dataset, folder_from_environment
from ..nnunet_faults import faults_of_dataset_json, faults_of_fingerprint, missing_files
from ..preprocessed import check_preprocessed_cases
from . import PLANS_NAME
from .memory_model import CPU_COMPILED, GPU
from .planner import PlanningError, check_plans_replaceable, nnUNetPlannerLightMUNet

DATASET_JSON_KEYS = ("labels", "numTraining", "file_ending")
# What nnU-Net's data set raises for damaged files or several formats in a folder, blosc2 for damage, the check for
# cases of other plans.
UNUSABLE = (ValueError, OSError, EOFError, RuntimeError, AssertionError, pickle.UnpicklingError)


@dataclass(frozen=True)
class Planned:
    """A configuration of a plans file.

    Attributes:
        name: "2d", "3d_fullres" or "3d_lowres".
        patch_size: In voxels.
        batch_size: Samples.
        gpu_gib: Estimate of a training step's memory on a GPU.
        cpu_gib: Estimate of what it adds to the process on a CPU with the compiled layers.
        preprocessed: Whether all cases are already preprocessed as these plans say.
    """

    name: str
    patch_size: tuple[int, ...]
    batch_size: int
    gpu_gib: float
    cpu_gib: float
    preprocessed: bool


@dataclass(frozen=True)
class Plans:
    """A plans file that was written.

    Attributes:
        dataset_name: As nnU-Net names it.
        file: Its path.
        configurations: All configurations with data of their own, smallest first.
    """

    dataset_name: str
    file: Path
    configurations: tuple[Planned, ...]


def plan_dataset(
    dataset: str,
    *,
    batch_size: int | None = None,
    gpu_memory_gb: float = 8.0,
    plans_name: str = PLANS_NAME,
    overwrite: bool = False,
) -> Plans:
    """Write a plans file for LightMUNet to nnUNet_preprocessed; the fingerprint is extracted if it is missing.

    Args:
        dataset: Id or name.
        batch_size: The same for every configuration; None: by nnU-Net's rules.
        gpu_memory_gb: The GPU's memory, in GiB.
        plans_name: Name of the plans file.
        overwrite: Also replace plans that were edited or made by another planner; they are renamed.

    Raises:
        PlanningError: if such plans exist, the data set cannot be read, or nothing fits into memory.
    """
    try:
        raw, preprocessed = folder_from_environment("nnUNet_raw"), folder_from_environment("nnUNet_preprocessed")
        name = find_dataset(dataset, raw)
    except NotFound as error:
        raise PlanningError(str(error)) from error
    check_dataset_json(raw / name / "dataset.json")
    if not overwrite:
        check_plans_replaceable(preprocessed / name / f"{plans_name}.json")
    check_fingerprint(preprocessed / name / "dataset_fingerprint.json")
    extractor = DatasetFingerprintExtractor(name, default_num_processes)
    _check_raw_files(extractor.dataset, raw / name)
    try:
        extractor.run(overwrite_existing=False)
    except RuntimeError as error:
        raise PlanningError(
            f"{raw / name}: the fingerprint cannot be extracted: {error}; "
            f"`nnUNetv2_extract_fingerprint -d {dataset_id(name)} --verify_dataset_integrity` tells more"
        ) from error
    planner = partial(nnUNetPlannerLightMUNet, batch_size=batch_size)
    plans, _ = plan_experiment_dataset(name, planner, gpu_memory_gb, overwrite_plans_name=plans_name)
    file = preprocessed / name / f"{plans_name}.json"
    return Plans(
        name,
        file,
        tuple(
            _planned(
                key,
                plans["configurations"][key],
                len(extractor.dataset_json["labels"]),
                _is_preprocessed(file, key, list(extractor.dataset), extractor.dataset_json),
            )
            for key in ("2d", "3d_lowres", "3d_fullres")
            if key in plans["configurations"]
        ),
    )


def check_dataset_json(path: Path) -> None:
    """Check that a dataset.json has what the planner reads.

    Raises:
        PlanningError: if something is missing, or is not what it should be.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlanningError(f"{path}: cannot be read: {error}") from error
    if faults := faults_of_dataset_json(content, DATASET_JSON_KEYS):
        raise PlanningError(f"{path}: {'; '.join(faults[:3])}")


def check_fingerprint(path: Path) -> None:
    """Check the fingerprint that the planner will read; without one, it is extracted.

    Raises:
        PlanningError: if it is torn, damaged, or not a fingerprint.
    """
    if not path.exists():
        return
    try:
        faults = faults_of_fingerprint(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        faults = [f"cannot be read: {error}"]
    if faults:
        raise PlanningError(f"{path}: {'; '.join(faults[:3])}. Remove this file: `plan` then extracts it again")


def _check_raw_files(cases: Mapping[str, Mapping], folder: Path) -> None:
    if not cases:
        raise PlanningError(f"{folder}: no training images; put them into imagesTr and their labels into labelsTr")
    missing = [file for case in cases.values() for file in (*case["images"], case["label"]) if not Path(file).is_file()]
    if missing:
        raise PlanningError(f"{folder}: {len(missing)} files are missing, the first is {missing[0]}")


def _planned(name: str, configuration: Mapping, num_classes: int, preprocessed: bool) -> Planned:
    patch, batch = tuple(configuration["patch_size"]), configuration["batch_size"]
    strides = configuration["architecture"]["arch_kwargs"]["strides"]
    gpu, cpu = (model.gib(patch, strides, batch, num_classes) for model in (GPU, CPU_COMPILED))
    return Planned(name, patch, batch, gpu, cpu, preprocessed)


def _is_preprocessed(plans_file: Path, name: str, cases: list[str], dataset_json: Mapping) -> bool:
    """Whether all cases are there, none of them from other plans or from a run that was killed."""
    plans = PlansManager(str(plans_file))
    configuration = plans.get_configuration(name)
    folder = plans_file.parent / configuration.data_identifier
    ground_truth = plans_file.parent / "gt_segmentations", dataset_json["file_ending"]
    if not folder.is_dir() or missing_files(folder, cases, ground_truth=ground_truth):
        return False
    dataset = infer_dataset_class(str(folder))(str(folder), cases)
    try:
        check_preprocessed_cases([dataset], channel_names_of(dataset_json), plans, configuration)
    except UNUSABLE:
        return False
    return True

"""A folder of nnU-Net's results with a trained model, read without executing anything in its checkpoints."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import LabelManager, determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor, nn

from ..checkpoints.safe_loading import CHECKPOINT_KEYS, CheckpointError, load_safely
from ..nnunet_faults import faults_of_dataset_json
from ..trainers import build_for_prediction, search_trainer
from .errors import ExportError

# What prediction reads of plans.json: of all plans, and of a configuration.
PLANS_KEYS = ("dataset_name", "plans_name", "configurations", "image_reader_writer", "transpose_forward")
CONFIGURATION_KEYS = (
    "data_identifier",
    "preprocessor_name",
    "patch_size",
    "spacing",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_data_kwargs",
    "resampling_fn_probabilities",
    "resampling_fn_probabilities_kwargs",
)
CASCADE = (
    "a configuration of a cascade takes the segmentation of {stage} as input, which no single file can bring along"
)


@dataclass(frozen=True)
class TrainedModel:
    """Everything that nnU-Net would predict with.

    Attributes:
        folder: The model folder.
        configuration: Its name, e.g. 3d_fullres.
        trainer: The trainer's name.
        checkpoint: Name of the file in each fold, e.g. checkpoint_final.pth.
        network: Without deep supervision, for evaluation; its weights are the first fold's.
        weights: State dict of each fold, by ``fold_0`` and so on.
        sha256: SHA-256 of each fold's checkpoint file.
        mirroring_axes: Spatial axes that prediction mirrors.
    """

    folder: Path
    configuration: str
    trainer: str
    checkpoint: str
    plans: PlansManager
    settings: ConfigurationManager
    labels: LabelManager
    dataset_json: dict[str, Any]
    network: nn.Module
    input_channels: int
    weights: dict[str, dict[str, Tensor]]
    sha256: dict[str, str]
    mirroring_axes: tuple[int, ...]

    def __str__(self) -> str:
        parameters = sum(parameter.numel() for parameter in self.network.parameters())
        return f"{self.trainer}, {self.configuration}, {', '.join(self.weights)}, {parameters:,} parameters each"


def read_model_folder(
    folder: Path, folds: Sequence[str] | None = None, checkpoint: str = "checkpoint_final.pth"
) -> TrainedModel:
    """Read a model as ``nnUNetv2_predict_from_modelfolder`` does.

    Args:
        folder: TRAINER__PLANS__CONFIGURATION below nnUNet_results, or an imported one.
        folds: Numbers, or "all"; None: all numbered folds that have the checkpoint.
        checkpoint: Its file name in each fold.

    Raises:
        ExportError: if the folder is not a model, a fold is missing or does not fit the network of the plans, its
            trainer is not found, or it is of a cascade.
    """
    plans_json, dataset_json = (_read_json(folder, name) for name in ("plans.json", "dataset.json"))
    _check_keys(folder / "plans.json", plans_json, PLANS_KEYS, "")
    if faults := faults_of_dataset_json(dataset_json):
        raise ExportError(f"{folder / 'dataset.json'}: {'; '.join(faults)}")
    paths = _checkpoints(folder, folds, checkpoint)
    contents = {path.parent.name: _read_checkpoint(path) for path in paths}
    trainer, configuration = _common(paths, contents)
    plans = PlansManager(plans_json)
    if configuration not in plans.available_configurations:
        raise ExportError(f"{folder / 'plans.json'}: has no configuration {configuration!r}, which {paths[0]} is of")
    settings = plans.get_configuration(configuration)
    _check_keys(folder / "plans.json", settings.configuration, CONFIGURATION_KEYS, f" in {configuration}")
    if settings.previous_stage_name is not None:
        raise ExportError(
            f"{folder}: {CASCADE.format(stage=settings.previous_stage_name)}; export another configuration"
        )
    labels = plans.get_label_manager(dataset_json)
    channels = determine_num_input_channels(plans, settings, dataset_json)
    trainer_class = _find_trainer(folder, trainer)
    network = build_for_prediction(trainer_class, plans, settings, channels, labels.num_segmentation_heads).eval()
    weights = {fold: content["network_weights"] for fold, content in contents.items()}
    # Each of them, the first fold last: its weights stay.
    for path in reversed(paths):
        _load(network, path, weights[path.parent.name])
    axes = next(iter(contents.values())).get("inference_allowed_mirroring_axes")
    return TrainedModel(
        folder=folder,
        configuration=configuration,
        trainer=trainer,
        checkpoint=checkpoint,
        plans=plans,
        settings=settings,
        labels=labels,
        dataset_json=dataset_json,
        network=network,
        input_channels=channels,
        weights=weights,
        sha256={path.parent.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths},
        mirroring_axes=tuple(axes or ()),
    )


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        raise ExportError(
            f"{folder}: is not a trained model: it has no {name}; expected a folder TRAINER__PLANS__CONFIGURATION "
            "below nnUNet_results"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ExportError(f"{path}: is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ExportError(f"{path}: holds a {type(content).__name__}; expected an object")
    return content


def _check_keys(path: Path, content: dict[str, Any], keys: Sequence[str], where: str) -> None:
    if missing := [key for key in keys if key not in content]:
        raise ExportError(f"{path}: lacks {', '.join(missing)}{where}; take the plans that the model was trained with")


def _checkpoints(folder: Path, folds: Sequence[str] | None, checkpoint: str) -> list[Path]:
    if folds is None:
        numbered = [path for path in folder.glob(f"fold_*/{checkpoint}") if re.fullmatch(r"fold_\d+", path.parent.name)]
        paths = sorted(numbered, key=lambda path: int(path.parent.name[5:]))
        if not paths:
            raise ExportError(f"{folder}: no fold_0, fold_1 ... in it has a {checkpoint}; name others by -f and -chk")
        return paths
    paths = [folder / f"fold_{fold}" / checkpoint for fold in dict.fromkeys(folds)]
    if missing := [str(path) for path in paths if not path.is_file()]:
        raise ExportError(f"no such checkpoint: {', '.join(missing)}")
    return paths


def _read_checkpoint(path: Path) -> dict[str, Any]:
    try:
        content = load_safely(path)
    except CheckpointError as error:
        raise ExportError(str(error)) from error
    if not isinstance(content, dict) or any(
        not isinstance(content.get(key), kind) for key, kind in CHECKPOINT_KEYS.items()
    ):
        raise ExportError(f"{path}: is not a checkpoint of nnU-Net; it needs {', '.join(CHECKPOINT_KEYS)}")
    return content


def _common(paths: Sequence[Path], contents: dict[str, dict[str, Any]]) -> tuple[str, str]:
    """Trainer and configuration, which all folds have in common."""
    of_fold = {
        path: (content["trainer_name"], content["init_args"].get("configuration"))
        for path, content in zip(paths, contents.values(), strict=True)
    }
    first = of_fold[paths[0]]
    for path, other in of_fold.items():
        if other != first:
            raise ExportError(f"{paths[0]} and {path}: are of {first} and {other}; folds of one training are needed")
    return first


def _find_trainer(folder: Path, name: str) -> type[nnUNetTrainer]:
    try:
        return search_trainer(name)
    except RuntimeError as error:
        raise ExportError(
            f"{folder}: was trained with {name}, which nnU-Net does not find here; install its package, or add its "
            f"folder to nnUNet_extTrainer: {error}"
        ) from error


def _load(network: nn.Module, path: Path, weights: dict[str, Any]) -> None:
    if other := [name for name, value in weights.items() if not isinstance(value, Tensor)]:
        raise ExportError(f"{path}: is not a checkpoint of nnU-Net; its weight {other[0]} is no tensor")
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ExportError(
            f"{path}: does not fit the network that {path.parent.parent / 'plans.json'} describes; name folds of one "
            f"training by -f, or take its plans: {error}"
        ) from error

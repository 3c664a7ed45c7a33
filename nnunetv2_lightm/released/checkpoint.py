"""Checkpoints of the authors' fork of nnU-Net (2.1.1): recognised, checked, and converted to the current format.

Such a file holds what nnU-Net 2.1.1 saves: ``init_args`` with an argument that trainers no longer have
(``unpack_dataset``), plans in the old format, and the trainer name ``nnUNetTrainerLightMUNet``, which belongs to the
paper's network here. The names of the parameters tell which of the two public revisions it is.
"""

from __future__ import annotations

import json
import math
import warnings
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor

from ..checkpoints.safe_loading import CHECKPOINT_KEYS, CheckpointError, check_extent, load_safely
from ..files import some_of
from ..trainers import is_ours, nnUNetTrainerLightMUNetReleased, nnUNetTrainerLightMUNetReleasedFirst

FORK_TRAINER = "nnUNetTrainerLightMUNet"
# A parameter that only one revision has.
REVISIONS = {
    "convInit.0.conv.weight": nnUNetTrainerLightMUNetReleased,
    "convInit.conv.weight": nnUNetTrainerLightMUNetReleasedFirst,
}
PAPER_PARAMETER = "stem.pointwise.weight"
WRAPPERS = ("module.", "_orig_mod.")  # DistributedDataParallel, torch.compile
NEEDED_INIT_ARGS = {"plans": dict, "configuration": str, "fold": (int, str), "dataset_json": dict}


@dataclass(frozen=True)
class ReleasedCheckpoint:
    """A checked checkpoint, as stock nnU-Net 2.8 and this package read it.

    Attributes:
        source: The file.
        trainer: The trainer for the same revision of the network.
        plans: The plans, with the configuration in the current format.
        fold: A number or "all".
        weights: State dict of the trainer's network.
        mirroring_axes: Axes that prediction may mirror; None: none.
    """

    source: Path
    trainer: type[nnUNetTrainer]
    plans: dict
    configuration: str
    dataset_json: dict
    fold: int | str
    weights: dict[str, Tensor]
    mirroring_axes: tuple[int, ...] | None

    def to_save(self) -> dict:
        """The parts of a checkpoint that prediction and ``-pretrained_weights`` read."""
        return {
            "network_weights": self.weights,
            "trainer_name": self.trainer.__name__,
            "init_args": {
                "plans": self.plans,
                "configuration": self.configuration,
                "fold": self.fold,
                "dataset_json": self.dataset_json,
            },
            "inference_allowed_mirroring_axes": self.mirroring_axes,
        }


def read_released_checkpoint(path: Path) -> ReleasedCheckpoint:
    """Load and check one file.

    Raises:
        CheckpointError: if it is not a checkpoint, belongs to another trainer or network, or does not fit its plans.
    """
    content = load_safely(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}; expected the dict of an nnU-Net checkpoint")
    _require(path, "checkpoint", content, CHECKPOINT_KEYS)
    init_args = content["init_args"]
    weights = _unwrap(path, content["network_weights"])
    trainer = _matching_trainer(path, content["trainer_name"], weights)
    _require(path, "init_args", init_args, NEEDED_INIT_ARGS)
    configuration, dataset_json = init_args["configuration"], init_args["dataset_json"]
    check_extent(path, "init_args", [init_args[name] for name in NEEDED_INIT_ARGS])
    plans, expected = _converted_plans_and_network(path, trainer, init_args["plans"], configuration, dataset_json)
    _compare(path, weights, expected)
    return ReleasedCheckpoint(
        source=path,
        trainer=trainer,
        plans=plans,
        configuration=configuration,
        dataset_json=dataset_json,
        fold=_fold(path, init_args["fold"]),
        weights=weights,
        mirroring_axes=_mirroring_axes(path, content.get("inference_allowed_mirroring_axes"), plans, configuration),
    )


def _require(path: Path, what: str, content: dict, needed: dict[str, type | tuple[type, ...]]) -> None:
    missing = [key for key in needed if key not in content]
    if missing:
        keys = ", ".join(map(str, list(content)[:8])) or "nothing"
        raise CheckpointError(
            f"{path}: is not a checkpoint of nnU-Net: its {what} lacks {', '.join(missing)}; it holds {keys}"
        )
    for key, types in needed.items():
        if not isinstance(content[key], types):
            raise CheckpointError(f"{path}: {key} is a {type(content[key]).__name__}, which no nnU-Net checkpoint has")


def _unwrap(path: Path, weights: dict) -> dict[str, Tensor]:
    """The state dict of the network inside the wrappers under which it was saved."""
    result = {}
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{path}: network_weights has {name!r}, a {type(value).__name__}; expected tensors")
        while name.startswith(WRAPPERS):
            name = name.partition(".")[2]
        if name in result:
            raise CheckpointError(f"{path}: network_weights has {name} twice, with and without a prefix")
        result[name] = value.detach()
    return result


def _matching_trainer(path: Path, trainer_name: str, weights: dict[str, Tensor]) -> type[nnUNetTrainer]:
    trainers = [trainer for name, trainer in REVISIONS.items() if name in weights]
    from_fork = trainer_name.partition("_")[0] == FORK_TRAINER  # variants carry a suffix
    # The fork's trainer and ours have the same name: only the parameters tell them apart.
    if is_ours(trainer_name) and (not from_fork or PAPER_PARAMETER in weights):
        raise CheckpointError(
            f"{path}: was trained with this package's {trainer_name}; there is nothing to import, predict with its own "
            "model folder"
        )
    if not from_fork:
        raise CheckpointError(f"{path}: was trained with {trainer_name}; expected the fork's {FORK_TRAINER}")
    if len(trainers) != 1:
        names = ", ".join(list(weights)[:3]) or "none"
        raise CheckpointError(
            f"{path}: is of {trainer_name}, but its network is not the released LightM-UNet: expected the parameter "
            f"{' (head revision) or '.join(REVISIONS)} (first); it has {len(weights)} parameters: {names} ..."
        )
    return trainers[0]


def _converted_plans_and_network(
    path: Path, trainer: type[nnUNetTrainer], plans: dict, configuration: str, dataset_json: dict
) -> tuple[dict, dict[str, Tensor]]:
    """The plans with the configuration as nnU-Net's own converter makes it, and the state dict, without values, of the
    network that nnU-Net will build from them."""
    plans = deepcopy(plans)
    plans.pop("continue_training", None)  # nnU-Net leaves it here for its trainer
    try:
        json.dumps(plans), json.dumps(dataset_json)
        manager = PlansManager(plans)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected old nnU-Net plans format")
            configuration_manager = manager.get_configuration(configuration)
        channels = determine_num_input_channels(manager, configuration_manager, dataset_json)
        classes = manager.get_label_manager(dataset_json).num_segmentation_heads
        with torch.device("meta"):
            network = trainer.build_network_architecture(manager, configuration_manager, channels, classes, False)
    except (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: nnU-Net cannot read its plans or dataset_json, configuration {configuration!r}: "
            f"{type(error).__name__}: {error}"
        ) from error
    converted = {key: value for key, value in configuration_manager.configuration.items() if key != "inherits_from"}
    plans["configurations"] = {**plans["configurations"], configuration: converted}
    return plans, network.state_dict()


def _compare(path: Path, weights: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Require the same names and shapes, dense floating-point tensors, and finite numbers."""
    problems = [f"{name} is missing" for name in expected if name not in weights]
    problems += [f"{name} is unknown" for name in weights if name not in expected]
    problems += [
        f"{name} is {tuple(weights[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    problems += [
        f"{name} is {tensor.dtype}, {tensor.layout}, on {tensor.device}; expected dense floating-point numbers"
        for name, tensor in weights.items()
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or not tensor.is_floating_point()
    ]
    if problems:
        raise CheckpointError(
            f"{path}: is not the released LightM-UNet for its plans and dataset_json: "
            f"{some_of(problems, separator='; ')}"
        )
    diverged = [name for name, tensor in weights.items() if not math.isfinite(tensor.sum(dtype=torch.float64))]
    if diverged:
        raise CheckpointError(
            f"{path}: {len(diverged)} parameters are not finite, e.g. {diverged[0]}: the training has diverged; try "
            "checkpoint_best.pth"
        )


def _fold(path: Path, fold: int | str) -> int | str:
    if fold == "all" or (isinstance(fold, int) and not isinstance(fold, bool) and fold >= 0):
        return fold
    raise CheckpointError(f"{path}: fold is {fold!r}; expected a number from 0 or 'all'")


def _mirroring_axes(path: Path, axes: object, plans: dict, configuration: str) -> tuple[int, ...] | None:
    dims = len(plans["configurations"][configuration]["patch_size"])
    if axes is None:
        return None
    if isinstance(axes, (tuple, list)) and all(axis in range(dims) for axis in axes):
        return tuple(map(int, axes))
    raise CheckpointError(
        f"{path}: inference_allowed_mirroring_axes is {axes!r}; expected None or spatial axes from 0 to {dims - 1}"
    )

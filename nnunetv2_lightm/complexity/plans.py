"""A configuration of a plans file, and the network that a trainer builds for it; both found as nnU-Net finds them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from ..json_input import JsonInputError, read_json
from ..nnunet_faults import faults_of_dataset_json
from ..trainers import build_for_prediction, search_trainer
from .errors import PlansError


@dataclass(frozen=True)
class PlannedConfiguration:
    """One configuration of one plans file.

    Attributes:
        dataset: Its full name, DatasetXXX_Name.
        name: Configuration name, e.g. 3d_fullres.
        plans_file: The plans file, in nnUNet_preprocessed.
        plans: Its content.
        configuration: The configuration of that name, with everything it inherits.
        dataset_json: The data set's dataset.json.
    """

    dataset: str
    name: str
    plans_file: Path
    plans: PlansManager
    configuration: ConfigurationManager
    dataset_json: dict

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of a patch, (channels, *spatial); in a cascade, the first stage's labels are channels of the second."""
        channels = determine_num_input_channels(self.plans, self.configuration, self.dataset_json)
        return channels, *self.configuration.patch_size

    @property
    def num_outputs(self) -> int:
        """Channels of the logits."""
        return self.plans.get_label_manager(self.dataset_json).num_segmentation_heads


def read_configuration(dataset: str, configuration: str, plans_identifier: str) -> PlannedConfiguration:
    """Find a configuration in nnUNet_preprocessed, as ``nnUNetv2_train`` does.

    Args:
        dataset: Number or full name.
        configuration: E.g. "3d_fullres".
        plans_identifier: Name of the plans file, e.g. "nnUNetPlans".
    Raises: PlansError: if the data set has not been planned, or its plans do not have the configuration.
    """
    try:
        name = maybe_convert_to_dataset_name(dataset)
        folder = Path(nnUNet_preprocessed) / name
    except (RuntimeError, ValueError) as error:
        raise PlansError(str(error)) from error
    plans_file = folder / f"{plans_identifier}.json"
    if not plans_file.is_file():
        there = ", ".join(sorted(file.stem for file in folder.glob("*lans*.json"))) or "none"
        raise PlansError(
            f"no plans {plans_file}; there are: {there}. `nnUNetv2_plan_experiment -d {dataset}` makes nnU-Net's"
        )
    dataset_json, content = (_read(file) for file in (folder / "dataset.json", plans_file))
    if faults := faults_of_dataset_json(dataset_json):
        raise PlansError(f"{folder / 'dataset.json'}: {'; '.join(faults)}")
    if not isinstance(content, dict) or not isinstance(content.get("configurations"), dict):
        raise PlansError(f"{plans_file}: has no configurations; plan the data set again")
    plans = PlansManager(str(plans_file))
    if configuration not in plans.available_configurations:
        there = ", ".join(plans.available_configurations)
        raise PlansError(f"{plans_file}: no configuration {configuration!r}; there are: {there}")
    return PlannedConfiguration(
        name, configuration, plans_file, plans, plans.get_configuration(configuration), dataset_json
    )


def _read(file: Path) -> object:
    try:
        return read_json(file)
    except JsonInputError as error:
        raise PlansError(str(error)) from error


def find_trainer(name: str) -> type[nnUNetTrainer]:
    """The trainer class that nnU-Net finds.

    Raises: PlansError: if it finds none.
    """
    try:
        return search_trainer(name)
    except RuntimeError as error:
        raise PlansError(str(error)) from error


def build_network(trainer: type[nnUNetTrainer], planned: PlannedConfiguration) -> nn.Module:
    """The network as prediction builds it."""
    channels = planned.sample_shape[0]
    return build_for_prediction(trainer, planned.plans, planned.configuration, channels, planned.num_outputs)

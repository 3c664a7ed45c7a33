"""The settings of a comparison, all checked before any work begins."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2.paths import nnUNet_extTrainer
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from ..complexity.errors import PlansError
from ..complexity.plans import PlannedConfiguration, find_trainer, read_configuration
from ..files import some_of
from ..json_input import JsonInputError, read_json
from ..nnunet import FOLDERS, NotFound, folder_from_environment
from ..nnunet_faults import faults_of_splits, missing_files, plan_again, preprocessed_cases
from ..trainers import TRAINERS, nearest_trainer, split_budget
from .held_out import fault_of_test_split, has_test_split
from .results_content import BUDGET, ITERATIONS, MAX_SECONDS, SECONDS

WALL_CLOCK = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>s|min|h)")
UNIT_SECONDS = {"s": 1, "min": 60, "h": 3600}
NNUNET_FOLDS = 5  # where there is no splits_final.json, nnU-Net makes as many
RESULTS_FILE, CALIBRATION_FILE = "results.json", "calibration.json"


class SettingsError(ValueError):
    """The comparison cannot begin; the message says why and how to fix it."""


@dataclass(frozen=True)
class Settings:
    """A comparison.

    Attributes:
        folder: Output folder for results, reports, logs and predictions.
        dataset: Full name.
        configuration: E.g. "3d_fullres".
        plans: Plans identifier.
        trainers: Trainer names without budget and seed.
        budget: Suffix of the trainers ("20epochs_100iters"), or seconds of training.
        folds: Folds of the split.
        seeds: Seeds of the initial weights and of all other randomness in the training process (trainers/budgets.py).
        device: "cpu", "cuda" or "mps".
        evaluation: Further options of `nnUNetv2_lightm evaluate`.
        title: Human-readable title.
        command: The words of the command line, as they may be shared.
        calibration_of: Folder of another comparison whose measured costs are used; None: measure them.
        timings: Whether to measure what a trainer costs, if unknown. Without it the budget must name iterations, or
            `calibration_of` know the costs of all trainers.
    """

    folder: Path
    dataset: str
    configuration: str
    plans: str
    trainers: tuple[str, ...]
    budget: str | float
    folds: tuple[int, ...]
    seeds: tuple[int, ...]
    device: str
    evaluation: tuple[str, ...]
    title: str
    command: tuple[str, ...]
    calibration_of: Path | None = None
    timings: bool = True

    @property
    def equal(self) -> str:
        """What is equal for all trainers."""
        return ITERATIONS if isinstance(self.budget, str) else SECONDS

    @property
    def needs_costs(self) -> bool:
        """Whether only a trainer's costs, or its own settings, say how many iterations the budget is."""
        return not isinstance(self.budget, str) or BUDGET.fullmatch(self.budget)["iterations"] is None

    @property
    def raw(self) -> Path:
        return nnunet_folder("nnUNet_raw") / self.dataset

    @property
    def preprocessed(self) -> Path:
        return nnunet_folder("nnUNet_preprocessed") / self.dataset

    @property
    def has_test_split(self) -> bool:
        """Whether the raw data set has test images and their labels."""
        return has_test_split(self.raw)

    @property
    def results_file(self) -> Path:
        return self.folder / RESULTS_FILE

    @property
    def calibration_file(self) -> Path:
        return self.folder / CALIBRATION_FILE


def nnunet_folder(variable: str) -> Path:
    """One of nnU-Net's three folders.

    Raises: SettingsError: if the variable is not set.
    """
    try:
        return folder_from_environment(variable)
    except NotFound as error:
        raise SettingsError(str(error)) from error


def parse_budget(text: str) -> str:
    """A budget suffix without its underscore in front, e.g. "20epochs_100iters".

    Raises: SettingsError: if it has another form.
    """
    if BUDGET.fullmatch(text.lstrip("_")) is None:
        raise SettingsError(f"budget {text!r}; expected e.g. 20epochs_100iters or 20epochs")
    return text.lstrip("_")


def parse_wall_clock(text: str) -> float:
    """Seconds of e.g. "90s", "60min" or "2h".

    Raises: SettingsError: if it has another form, or is zero or longer than any training.
    """
    match = WALL_CLOCK.fullmatch(text)
    seconds = 0.0 if match is None else float(match["number"]) * UNIT_SECONDS[match["unit"]]
    if not 0 < seconds < MAX_SECONDS:
        raise SettingsError(
            f"wall-clock time {text!r}; expected a number above 0 with its unit, 90s, 60min or 2h, in all less than "
            f"{MAX_SECONDS:g} s"
        )
    return seconds


def check_trainers(names: Sequence[str]) -> None:
    """Check that every trainer can be compared: ours, nnU-Net's, or one from a directory in nnUNet_extTrainer.

    Raises: SettingsError: for a name that nnU-Net does not find, that has a budget, or that occurs twice.
    """
    known = (nnUNetTrainer.__name__, *TRAINERS)  # these need no search, which imports all of nnU-Net's
    for name in names:
        if name in known:
            continue
        if budget := split_budget(name):
            raise SettingsError(f"{name!r} has a budget, which has its own option; give {budget[0]!r}")
        try:
            find_trainer(name)
        except PlansError as error:
            near = nearest_trainer(name, known)
            suggestion = f"; did you mean {near.partition('_')[0]!r}?" if near else "."
            raise SettingsError(
                f"no trainer {name!r}{suggestion} There are: {', '.join(known)}, nnU-Net's own, and those in the "
                f"directories of nnUNet_extTrainer ({nnUNet_extTrainer.get() or 'not set'})"
            ) from error
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SettingsError(f"named more than once: {', '.join(twice)}")


def check_data(dataset: str, configuration: str, plans: str, folds: Sequence[int]) -> PlannedConfiguration:
    """Check that everything the trainings, predictions and evaluations read exists.

    Args:
        dataset: Number or full name.
        configuration: E.g. "2d".
        plans: Plans identifier.
        folds: Folds of the split.
    Raises: SettingsError: naming the file that is missing, and how to get it.
    """
    for variable in FOLDERS:
        nnunet_folder(variable)
    try:
        planned = read_configuration(dataset, configuration, plans)
    except (PlansError, OSError) as error:
        raise SettingsError(f"{error}. To plan and preprocess: {plan_again(dataset, configuration)}") from error
    if planned.configuration.previous_stage_name is not None:
        raise SettingsError(
            f"{planned.plans_file}: {configuration} continues from {planned.configuration.previous_stage_name}, whose "
            "segmentations each trainer would have to make first; give a configuration with a single stage"
        )
    for fold in folds:
        _check_fold(planned, fold)
    raw = nnunet_folder("nnUNet_raw") / planned.dataset
    if has_test_split(raw) and (fault := fault_of_test_split(raw, planned.dataset_json["file_ending"])):
        raise SettingsError(fault)
    return planned


def _check_fold(planned: PlannedConfiguration, fold: int) -> None:
    preprocessed = planned.plans_file.parent
    data = preprocessed / planned.configuration.data_identifier
    remedy = plan_again(planned.dataset, planned.name)
    if not data.is_dir() or not (cases := preprocessed_cases(data)):
        raise SettingsError(f"{data} holds no preprocessed cases. Make them: {remedy}")
    splits_file = preprocessed / "splits_final.json"
    num_folds = NNUNET_FOLDS
    if splits_file.exists():
        splits = _read_splits(splits_file)
        num_folds = len(splits)
        if fold < num_folds:
            cases = sorted({*splits[fold]["train"], *splits[fold]["val"]})
    if not 0 <= fold < num_folds:
        raise SettingsError(f"no fold {fold}: {splits_file} has {num_folds}, numbered from 0")
    ground_truth = (preprocessed / "gt_segmentations", planned.dataset_json["file_ending"])
    if missing := missing_files(data, cases, ground_truth=ground_truth):
        raise SettingsError(f"{len(missing)} files of fold {fold} are missing: {some_of(missing)}. Make them: {remedy}")


def _read_splits(file: Path) -> list[dict[str, list[str]]]:
    try:
        splits = read_json(file)
    except JsonInputError as error:
        raise SettingsError(f"{error}. Remove it: nnU-Net makes a new one") from error
    if faults := faults_of_splits(splits):
        raise SettingsError(f"{file}: {faults[0]}. Correct it, or remove it: nnU-Net makes a new one")
    return splits

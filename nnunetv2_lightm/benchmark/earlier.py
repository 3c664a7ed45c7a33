"""Results, costs and trainings of earlier calls, which are reused only if their plans are the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..checkpoints.integrity import CHECKPOINTS
from ..complexity.plans import PlannedConfiguration
from ..escaping import short_repr
from ..files import partial_path
from ..json_input import JsonInputError, read_json
from ..nnunet_faults import INTENSITIES, resolved_configuration
from ..runs.pipeline import LOCK_FILE
from .costs import MeasuredCosts, load_costs
from .results import ResultsError, load_results
from .settings import CALIBRATION_FILE, RESULTS_FILE, Settings, SettingsError
from .tasks import PlannedRun

# Keys outside a configuration that decide about its trainings (nnunetv2: preprocessing/preprocessors).
SHARED_KEYS = ("transpose_forward", *INTENSITIES)


def planned_sizes(planned: PlannedConfiguration) -> dict[str, Any]:
    """The part of the plans that results.json holds: its patch_size, batch_size and spacing_mm."""
    configuration = planned.configuration
    return {
        "patch_size": tuple(map(int, configuration.patch_size)),
        "batch_size": int(configuration.batch_size),
        "spacing_mm": tuple(map(float, configuration.spacing)),
    }


def check_folder(settings: Settings, planned: PlannedConfiguration) -> None:
    """Check that the folder is new, or holds this same comparison, with the plans that there are now.

    Raises: SettingsError: if it holds something else.
    """
    folder, file = settings.folder, settings.results_file
    if not file.exists():
        begun = {LOCK_FILE, partial_path(file).name}  # left by a call that was ended at once
        if folder.exists() and (not folder.is_dir() or any(path.name not in begun for path in folder.iterdir())):
            raise SettingsError(f"{folder} is not empty and has no {file.name}; give a new or empty folder")
        return
    try:
        before = load_results(file)
    except ResultsError as error:
        raise SettingsError(
            f"{error}. Give another folder with -o: complete trainings are reused, they are in nnUNet_results"
        ) from error
    for name in ("dataset", "configuration", "plans", "equal", "budget"):
        old, new = getattr(before, name), getattr(settings, name)
        if old != new:
            raise SettingsError(
                f"{file} belongs to another comparison, with {name} {old!r} instead of {new!r}; give another folder "
                "with -o"
            )
    for name, new in planned_sizes(planned).items():
        old = getattr(before, name)
        if old != new:
            raise SettingsError(
                f"{file} belongs to a comparison with {name} {old!r}; {planned.plans_file} has {new!r} now. Bring the "
                "plans of that comparison back, or give another folder with -o"
            )


def check_trainings(settings: Settings, planned: PlannedConfiguration, runs: Iterable[PlannedRun]) -> None:
    """Check that trainings that would be adopted or continued were begun with the plans that there are now.

    nnU-Net saves the plans of a training in the folder of the model, which its prediction reads.

    Raises: SettingsError: naming the training and what has changed since.
    """
    for run in runs:
        fold_folder = run.fold_folder(settings)
        file = fold_folder.parent / "plans.json"
        # Without a checkpoint nnU-Net begins anew. Without plans it cannot predict, and says so.
        if not file.is_file() or not any((fold_folder / name).exists() for name in CHECKPOINTS):
            continue
        try:
            saved = read_json(file)
        except JsonInputError as error:
            raise SettingsError(f"{error}. Move {file.parent} away to train it again") from error
        if changes := _changes(saved, planned):
            raise SettingsError(
                f"{fold_folder} was trained with other plans than those in {planned.plans_file} now: "
                f"{'; '.join(changes)}. Move {file.parent} away to train it again, or bring the plans of that training "
                "back"
            )


def costs_to_reuse(settings: Settings, planned: PlannedConfiguration) -> MeasuredCosts | None:
    """The costs measured by the comparison that `calibration_of` names, if any.

    Raises: SettingsError: if they belong to other plans or another device; ResultsError: if they cannot be read.
    """
    if settings.calibration_of is None:
        return None
    file = settings.calibration_of / RESULTS_FILE
    other = load_results(file)
    wanted = {name: getattr(settings, name) for name in ("dataset", "configuration", "plans")} | planned_sizes(planned)
    for name, new in wanted.items():
        if getattr(other, name) != new:
            raise SettingsError(
                f"{file} was measured with {name} {getattr(other, name)!r}, not {new!r}, where an iteration has "
                "another cost; leave out --calibration-of"
            )
    file = settings.calibration_of / CALIBRATION_FILE
    costs = load_costs(file)
    if costs.device != settings.device:
        raise SettingsError(f"{file} was measured on {costs.device}, not on {settings.device}")
    unknown = [trainer for trainer in settings.trainers if trainer not in costs.trainers]
    if unknown and not settings.timings and settings.needs_costs:
        raise SettingsError(f"{file} has no costs of {', '.join(unknown)}; leave out --no-timings to measure them")
    return costs


def _changes(saved: Any, planned: PlannedConfiguration) -> list[str]:
    """How the plans of a training differ from the present ones, in what decides about a training."""
    configurations = saved.get("configurations") if isinstance(saved, dict) else None
    if not isinstance(configurations, dict) or planned.name not in configurations:
        return [f"they had no configuration {planned.name!r}"]
    old, new = (_deciding(plans, planned.name) for plans in (saved, planned.plans.plans))
    return [
        f"{key} was {short_repr(old.get(key))} and is {short_repr(new.get(key))}"
        for key in dict.fromkeys((*new, *old))
        if old.get(key) != new.get(key)
    ]


def _deciding(plans: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    return {
        **resolved_configuration(dict(plans), configuration),
        **{key: plans[key] for key in SHARED_KEYS if key in plans},
    }

"""nnU-Net trainers, found by name through the plug-in directory that nnU-Net searches."""

from __future__ import annotations

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from .ablations import (
    nnUNetTrainerLightMUNetConv3,
    nnUNetTrainerLightMUNetNoAdjustment,
    nnUNetTrainerLightMUNetNoResidual,
    nnUNetTrainerLightMUNetSelfAttention,
)
from .baselines import (
    nnUNetTrainerPlainMuon,
    nnUNetTrainerSegResNet,
    nnUNetTrainerSwinUNETR,
    nnUNetTrainerUMambaBot,
    nnUNetTrainerUMambaEnc,
    nnUNetTrainerUNETR,
)
from .budgets import split_budget, with_budget
from .lightm_unet import nnUNetTrainerLightMUNet, nnUNetTrainerLightMUNetAdamW, nnUNetTrainerLightMUNetPaperSGD
from .lightm_unet_released import nnUNetTrainerLightMUNetReleased, nnUNetTrainerLightMUNetReleasedFirst
from .names import found_in_later_directory, nearest_trainer, search_trainer
from .prediction import build_for_prediction
from .safeguards.files import watch_predictions

TRAINERS: dict[str, type[nnUNetTrainer]] = {
    trainer.__name__: trainer
    for trainer in (
        nnUNetTrainerLightMUNet,
        nnUNetTrainerLightMUNetAdamW,
        nnUNetTrainerLightMUNetPaperSGD,
        nnUNetTrainerLightMUNetConv3,
        nnUNetTrainerLightMUNetSelfAttention,
        nnUNetTrainerLightMUNetNoAdjustment,
        nnUNetTrainerLightMUNetNoResidual,
        nnUNetTrainerSegResNet,
        nnUNetTrainerUNETR,
        nnUNetTrainerSwinUNETR,
        nnUNetTrainerUMambaBot,
        nnUNetTrainerUMambaEnc,
        nnUNetTrainerPlainMuon,
        nnUNetTrainerLightMUNetReleased,
        nnUNetTrainerLightMUNetReleasedFirst,
    )
}

__all__ = [
    "TRAINERS",
    "build_for_prediction",
    "comes_from_here",
    "explain_unknown",
    "find_trainer",
    "is_ours",
    "nearest_trainer",
    "search_trainer",
    "split_budget",
    *TRAINERS,
]


def find_trainer(name: str) -> type[nnUNetTrainer] | None:
    """The trainer class for a name, which may end in a budget (``_20epochs``, ``_20epochs_50iters_seed1``).

    A budget applies to the trainer that nnU-Net finds under the name without the budget: ours, nnU-Net's, or one from a
    directory in ``nnUNet_extTrainer``, even if that shadows one of ours. None: the name is not one of ours, or nnU-Net
    finds no trainer for the part before the budget.
    """
    if name in TRAINERS:
        return TRAINERS[name]
    budget = split_budget(name)
    if budget is None:
        return None
    base = _base(budget[0])
    return None if base is None else with_budget(base, name, budget[1])


def _base(name: str) -> type[nnUNetTrainer] | None:
    """The trainer that nnU-Net finds under a name without a budget."""
    if name == nnUNetTrainer.__name__:  # saves the search, which imports all of nnU-Net's trainers
        return nnUNetTrainer
    try:
        return search_trainer(name)
    except RuntimeError:
        return TRAINERS.get(name)  # our directory may not be in nnUNet_extTrainer


def is_ours(name: str) -> bool:
    """Whether a trainer is one of this package's, with or without a budget."""
    budget = split_budget(name)
    return (name if budget is None else budget[0]) in TRAINERS


def comes_from_here(name: str) -> bool:
    """Whether nnU-Net gets a trainer of this name from this package: one of ours, or anyone's with our budget suffix.

    nnU-Net has a few of its own that look like the latter, such as nnUNetTrainer_20epochs, and finds those first.
    """
    if is_ours(name):
        return True
    if split_budget(name) is None:
        return False
    try:
        return search_trainer(name).__module__ == with_budget.__module__
    except RuntimeError:
        return False


def explain_unknown(name: str, shim_directory: str) -> str | None:
    """The message for an unknown name that resembles one of ours; None if it does not, or if another plug-in has it.

    Args:
        name: The name that nnU-Net looks for.
        shim_directory: Our directory in nnUNet_extTrainer, which other plug-ins' directories may follow.
    """
    nearest = nearest_trainer(name, [nnUNetTrainer.__name__, *TRAINERS])
    if nearest is None or found_in_later_directory(name, shim_directory):
        return None
    return (
        f"there is no trainer {name!r}; did you mean {nearest!r}? nnunetv2-lightm has {', '.join(TRAINERS)}; a suffix "
        "sets the budget, on these and on all others: _20epochs or _20epochs_50iters"
    )


watch_predictions(comes_from_here)

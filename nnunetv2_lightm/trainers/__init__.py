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
    nnUNetTrainerSegResNet,
    nnUNetTrainerSwinUNETR,
    nnUNetTrainerUMambaBot,
    nnUNetTrainerUMambaEnc,
    nnUNetTrainerUNETR,
)
from .budgets import split_budget, with_budget
from .lightm_unet import nnUNetTrainerLightMUNet, nnUNetTrainerLightMUNetPaperSGD
from .lightm_unet_released import nnUNetTrainerLightMUNetReleased, nnUNetTrainerLightMUNetReleasedFirst

TRAINERS: dict[str, type[nnUNetTrainer]] = {
    trainer.__name__: trainer
    for trainer in (
        nnUNetTrainerLightMUNet,
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
        nnUNetTrainerLightMUNetReleased,
        nnUNetTrainerLightMUNetReleasedFirst,
    )
}

__all__ = ["TRAINERS", "find_trainer", *TRAINERS]


def find_trainer(name: str) -> type[nnUNetTrainer] | None:
    """The trainer class of a name, which may end in a budget (``_20epochs``, ``_20epochs_50iters``).

    A budget goes on each of our trainers and on stock ``nnUNetTrainer``. None: the name is not one of ours.
    """
    if name in TRAINERS:
        return TRAINERS[name]
    budget = split_budget(name)
    if budget is None:
        return None
    base_name, epochs, iterations = budget
    base = {**TRAINERS, nnUNetTrainer.__name__: nnUNetTrainer}.get(base_name)
    return None if base is None else with_budget(base, name, epochs, iterations)

"""The trials of search.py: LightMUNet with Muon, each with one change; each also validates averaged weights.

nnU-Net finds them like lightm_unet_variants.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from nnunetv2_lightm.optim import THREE_STEPS
from nnunetv2_lightm.optim.polar import Coefficients, slackened
from nnunetv2_lightm.trainers.lightm_unet import LightMUNetTrainer
from nnunetv2_lightm.trainers.recipes import LIGHTM_UNET_MUON, Recipe

# Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/: the same polynomial in each step.
JORDAN: Coefficients = ((3.4445, -4.7750, 2.0315),) * 5
# The first three of the five steps from 0.001 in "The Polar Express" (Amsel et al. 2025, arXiv:2505.16932).
THREE_OF_FIVE_STEPS = slackened(
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
)
EMA_DECAY = 0.99
BASE = replace(LIGHTM_UNET_MUON, options={**LIGHTM_UNET_MUON.options, "coefficients": JORDAN})


def changed(**options: object) -> Recipe:
    return replace(BASE, options={**BASE.options, **options})


class _Trial(LightMUNetTrainer):
    """Also validates the exponential moving average of the weights, in the folder validation_ema."""

    recipe = BASE

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.current_epoch:
            return  # no checkpoint has the average: what --c continues has none
        self.ema = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}
        self.ema_steps = 0

    def train_step(self, batch: dict) -> dict:
        result = super().train_step(batch)
        if not hasattr(self, "ema"):
            return result
        self.ema_steps += 1
        decay = min(EMA_DECAY, (1 + self.ema_steps) / (10 + self.ema_steps))  # the first weights are soon forgotten
        for name, tensor in self.network.state_dict().items():
            self.ema[name].lerp_(tensor, 1 - decay)
        return result

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        super().perform_actual_validation(save_probabilities)
        if not hasattr(self, "ema"):
            return
        folder, own = Path(self.output_folder, "validation"), Path(self.output_folder, "validation_own")
        folder.rename(own)
        weights = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        with torch.no_grad():
            self.network.load_state_dict(self.ema)
            super().perform_actual_validation(save_probabilities)
            self.network.load_state_dict(weights)
        folder.rename(folder.with_name("validation_ema"))
        own.rename(folder)


class nnUNetTrainerTrialBase(_Trial):
    """The trial that suggested the recipe: five of Jordan's steps, Muon 2e-3, weights near the identity."""


class nnUNetTrainerTrialNoInit(_Trial):
    """PyTorch's initial weights."""

    recipe = replace(BASE, initialise=None)


class nnUNetTrainerTrialPolar3(_Trial):
    """The first three of the Polar Express's five steps."""

    recipe = changed(coefficients=THREE_OF_FIVE_STEPS)


class nnUNetTrainerTrialThreeSteps(_Trial):
    """Three steps of the Polar Express with coefficients for three, those of the package."""

    recipe = changed(coefficients=THREE_STEPS)


class nnUNetTrainerTrialMuonLR4e3(_Trial):
    """Muon 4e-3."""

    recipe = changed(muon_lr_factor=4.0)


class nnUNetTrainerTrialMuonLR1e3(_Trial):
    """Muon 1e-3."""

    recipe = changed(muon_lr_factor=1.0)


class nnUNetTrainerTrialMomentum09(_Trial):
    """Muon's momentum 0.9."""

    recipe = changed(momentum=0.9)


class nnUNetTrainerTrialDecay1e1(_Trial):
    """Weight decay 0.1."""

    recipe = replace(BASE, weight_decay=0.1)

"""What all trainers of this package share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

from ..layers import SelectiveSSM
from ..ops import select_backend
from .checkpoints import AtomicCheckpoints
from .safeguards import Safeguards


class Recipe(NamedTuple):
    """An optimiser; the learning rate falls by nnU-Net's poly schedule."""

    optimizer: type[torch.optim.Optimizer]
    initial_lr: float
    weight_decay: float


class PluginTrainer(Safeguards, AtomicCheckpoints):
    """100 epochs, as all networks of the LightM-UNet paper have; the network's size in the log.

    Everything else is nnU-Net's own: plans, augmentation, CE + Dice, gradient clipping at 12, inference. What differs
    between trainers is in class attributes, so that none has to repeat nnU-Net's constructor for it.
    """

    recipe: Recipe | None = None  # None: nnU-Net's SGD
    deep_supervision = False
    epochs_between_checkpoints = 5  # as often in a training as nnU-Net saves, every 50 of 1000

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = 100
        self.enable_deep_supervision = self.deep_supervision
        self.save_every = self.epochs_between_checkpoints
        if self.recipe is not None:
            _, self.initial_lr, self.weight_decay = self.recipe

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, PolyLRScheduler]:
        if self.recipe is None:
            return super().configure_optimizers()
        parameters = self.network.parameters()
        optimizer = self.recipe.optimizer(parameters, lr=self.initial_lr, weight_decay=self.weight_decay)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Nothing to switch unless the trainer has deep supervision: the network returns one map of logits."""
        if self.enable_deep_supervision:
            super().set_deep_supervision_enabled(enabled)

    def on_train_start(self) -> None:
        super().on_train_start()
        parameters = sum(p.numel() for p in self.network.parameters())
        message = f"{type(self).__name__}: {parameters:,} parameters"
        if any(isinstance(module, SelectiveSSM) for module in self.network.modules()):
            message += f", selective scan backend: {select_backend(self.device.type)}"
        self.print_to_log_file(message)

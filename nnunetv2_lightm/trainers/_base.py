"""What all trainers of this package share."""

from __future__ import annotations

import torch

from ..layers import SelectiveSSM
from ..ops import select_backend
from .checkpoints import AtomicCheckpoints
from .safeguards import Safeguards


class PluginTrainer(Safeguards, AtomicCheckpoints):
    """100 epochs, as all networks of the LightM-UNet paper have; no deep supervision; the network's size in the log.

    Everything else is nnU-Net's own: plans, augmentation, CE + Dice, SGD, gradient clipping at 12, inference.
    """

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
        self.enable_deep_supervision = False
        self.save_every = 5  # as often in a training as nnU-Net does, 50 of 1000

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

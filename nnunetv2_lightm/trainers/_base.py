"""What all trainers of this package share."""

from __future__ import annotations

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from ..layers import SelectiveSSM
from ..ops import select_backend
from .checkpoints import AtomicCheckpoints
from .recipes import Recipe
from .safeguards import Safeguards, check_plans, safeguarded


class PluginTrainer(Safeguards, AtomicCheckpoints):
    """100 epochs, as for all networks in the LightM-UNet paper; logs the network's size.

    Everything else is nnU-Net's own: plans, augmentation, CE + Dice, gradient clipping at 12, inference. A trainer
    names its network and its recipe; all other differences are class attributes, so that no trainer has to repeat
    nnU-Net's constructor.
    """

    recipe: Recipe | None = None  # None: nnU-Net's SGD
    deep_supervision = False
    epochs_between_checkpoints = 5  # the same share as nnU-Net's 50 of 1000
    has_grad_scaler = True  # on CUDA, as nnU-Net; False: the trainer's steps compute in float32

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ) -> None:
        check_plans(plans, configuration, dataset_json)
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = 100
        self.enable_deep_supervision = self.deep_supervision
        self.save_every = self.epochs_between_checkpoints
        if not self.has_grad_scaler:
            self.grad_scaler = None
        if self.recipe is not None:
            self.initial_lr, self.weight_decay = self.recipe.initial_lr, self.recipe.weight_decay

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """The network for a configuration; nnU-Net calls this in training and in prediction."""
        network = cls.make_network(
            plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision
        )
        # Before nnU-Net wraps it in DDP, which copies the weights of the first process to all others.
        if cls.recipe is not None and cls.recipe.initialise is not None:
            cls.recipe.initialise(network)
        return safeguarded(network)

    @classmethod
    def make_network(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool,
    ) -> nn.Module:
        """The trainer's network with its initial weights. Default: nnU-Net's network for the plans."""
        return nnUNetTrainer.build_network_architecture(
            plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision
        )

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, PolyLRScheduler]:
        if self.recipe is None:
            return super().configure_optimizers()
        return self.recipe.optimizer_for(self.network, self.num_epochs, self.initial_lr, self.weight_decay)

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Nothing to switch without deep supervision: the network then always returns a single map of logits."""
        if self.enable_deep_supervision:
            super().set_deep_supervision_enabled(enabled)

    def on_train_start(self) -> None:
        super().on_train_start()
        parameters = sum(p.numel() for p in self.network.parameters())
        message = f"{type(self).__name__}: {parameters:,} parameters"
        if any(isinstance(module, SelectiveSSM) for module in self.network.modules()):
            message += f", selective scan backend: {select_backend(self.device.type)}"
        self.print_to_log_file(message)

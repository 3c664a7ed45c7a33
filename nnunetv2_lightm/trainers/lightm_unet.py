"""Trainers of the paper's network: one with a recipe that trains it well, one with the paper's recipe to the letter."""

from __future__ import annotations

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from ..networks import LightMUNet
from ._base import PluginTrainer, Recipe
from .safeguards import safeguarded


class nnUNetTrainerLightMUNet(PluginTrainer):
    """LightM-UNet (the paper's text) in nnU-Net: AdamW 1e-3, weight decay 1e-2, poly schedule, 100 epochs.

    Everything else is nnU-Net's own: plans, augmentation, CE + Dice, gradient clipping at 12, inference. The optimiser
    is not the paper's, which barely moves this network in 100 epochs; :class:`nnUNetTrainerLightMUNetPaperSGD` has
    that one. No deep supervision, as in the paper.
    """

    network_options: dict[str, object] = {}  # of LightMUNet, beside what the plans say

    recipe = Recipe(torch.optim.AdamW, initial_lr=1e-3, weight_decay=1e-2)
    # A checkpoint is some 30 MB, so that a killed run need not lose more than an epoch.
    epochs_between_checkpoints = 1

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """The network for a configuration; nnU-Net calls this in training and in prediction.

        Only the strides come from the plans: thin axes are not halved.
        """
        network = LightMUNet(
            num_input_channels,
            num_output_channels,
            spatial_dims=len(configuration_manager.patch_size),
            strides=configuration_manager.pool_op_kernel_sizes,
            deep_supervision=enable_deep_supervision,
            **cls.network_options,
        )
        return safeguarded(network)

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, PolyLRScheduler]:
        optimizer = torch.optim.AdamW(_parameter_groups(self.network, self.weight_decay), lr=self.initial_lr)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)


class nnUNetTrainerLightMUNetPaperSGD(nnUNetTrainerLightMUNet):
    """The recipe of the paper's section 3 to the letter: SGD, initial learning rate 1e-4, poly schedule, 100 epochs,
    cross entropy + Dice.

    The paper names neither momentum nor weight decay: both are 0, as in PyTorch's SGD.
    """

    recipe = Recipe(torch.optim.SGD, initial_lr=1e-4, weight_decay=0.0)

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, PolyLRScheduler]:
        return PluginTrainer.configure_optimizers(self)


def _parameter_groups(network: nn.Module, weight_decay: float) -> list[dict]:
    """Weight decay on the matrices and kernels only: not on norms, biases, adjustment factors, A_log and D."""
    decayed, free = [], []
    for name, parameter in network.named_parameters():
        (decayed if parameter.ndim > 1 and not name.endswith("A_log") else free).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]

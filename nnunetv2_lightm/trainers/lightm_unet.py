"""Trainers of the paper's network: one network, several recipes."""

from __future__ import annotations

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from ..networks import LightMUNet
from ._base import PluginTrainer
from .recipes import ADAMW, LIGHTM_UNET_MUON, PAPER_SGD


class LightMUNetTrainer(PluginTrainer):
    """The network of the paper's text, for any recipe. No deep supervision, as in the paper."""

    network_options: dict[str, object] = {}  # for LightMUNet, in addition to those from the plans
    # A checkpoint takes only some 30 MB, so a killed run need not lose more than one epoch.
    epochs_between_checkpoints = 1

    @classmethod
    def make_network(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool,
    ) -> nn.Module:
        """The plans set the strides, so thin axes are not halved, and nothing else."""
        return LightMUNet(
            num_input_channels,
            num_output_channels,
            spatial_dims=len(configuration_manager.patch_size),
            strides=configuration_manager.pool_op_kernel_sizes,
            deep_supervision=enable_deep_supervision,
            **cls.network_options,
        )


class nnUNetTrainerLightMUNet(LightMUNetTrainer):
    """LightM-UNet (the paper's text) in nnU-Net: Muon 2e-3 on its matrices, AdamW 1e-3 on the rest, weight decay 1e-2,
    poly schedule, 100 epochs, from initial weights near the identity.

    The optimiser is not the paper's, which hardly trains this network in 100 epochs; see
    :class:`nnUNetTrainerLightMUNetPaperSGD` for that one. docs/study compares the three.
    """

    recipe = LIGHTM_UNET_MUON


class nnUNetTrainerLightMUNetAdamW(LightMUNetTrainer):
    """The same network with AdamW 1e-3 on all weights, weight decay 1e-2, poly schedule, 100 epochs, from PyTorch's
    initial weights.
    """

    recipe = ADAMW


class nnUNetTrainerLightMUNetPaperSGD(LightMUNetTrainer):
    """The recipe of the paper's section 3 to the letter: SGD, initial learning rate 1e-4, poly schedule, 100 epochs,
    cross entropy + Dice.
    """

    recipe = PAPER_SGD

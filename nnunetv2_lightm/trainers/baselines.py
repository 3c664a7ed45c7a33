"""Trainers of the networks that the LightM-UNet paper compares with: MONAI's, U-Mamba, and nnU-Net's own network with
our recipe.

Loss, epochs and everything else are those of our other trainers, so only network and optimiser differ.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from ..networks import UMambaBot, UMambaEnc, segresnet, swin_unetr, unetr
from ._base import PluginTrainer
from .recipes import UNET_MUON, Recipe


class _MonaiTrainer(PluginTrainer):
    """Subclasses name a builder from networks/monai_networks.py and a recipe. Needs the extra `baselines`."""

    builder: Callable[..., nn.Module]

    @classmethod
    def make_network(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool,
    ) -> nn.Module:
        """The plans set only the patch size; there is no deep supervision."""
        return cls.builder(num_input_channels, num_output_channels, configuration_manager.patch_size)


class nnUNetTrainerSegResNet(_MonaiTrainer):
    """SegResNet: Adam 1e-4, L2 penalty 1e-5, poly schedule, which are its paper's (Myronenko 2018), 100 epochs."""

    builder = staticmethod(segresnet)
    recipe = Recipe(torch.optim.Adam, initial_lr=1e-4, weight_decay=1e-5)


class nnUNetTrainerUNETR(_MonaiTrainer):
    """UNETR: AdamW 1e-4, its paper's (Hatamizadeh et al. 2022), weight decay 1e-2, poly schedule, 100 epochs."""

    builder = staticmethod(unetr)
    recipe = Recipe(torch.optim.AdamW, initial_lr=1e-4, weight_decay=1e-2)


class nnUNetTrainerSwinUNETR(_MonaiTrainer):
    """Swin UNETR: AdamW 1e-4, weight decay 1e-2, poly schedule, 100 epochs.

    Its paper uses 8e-4 after a warm-up. nnU-Net has no warm-up, and its authors needed 1e-4 for Swin networks
    (MIC-DKFZ/nnUNet#2197).
    """

    builder = staticmethod(swin_unetr)
    recipe = Recipe(torch.optim.AdamW, initial_lr=1e-4, weight_decay=1e-2)


class _UMambaTrainer(PluginTrainer):
    """Subclasses name their network. Deep supervision and nnU-Net's optimiser, as in U-Mamba's paper."""

    network_class: type[nn.Module]
    deep_supervision = True

    @classmethod
    def make_network(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool,
    ) -> nn.Module:
        """The network with the stages of the plans' U-Net, with a residual block for each convolution of a plain one.

        Raises:
            ValueError: if the plans describe another network than nnU-Net's U-Nets.
        """
        architecture = dict(configuration_manager.network_arch_init_kwargs)
        if "n_conv_per_stage" in architecture:
            architecture["n_blocks_per_stage"] = architecture.pop("n_conv_per_stage")
        if "n_blocks_per_stage" not in architecture:
            raise ValueError(
                f"the plans {plans_manager.plans_name} are for {configuration_manager.network_arch_class_name}; "
                f"{cls.__name__} takes its stages from plans for one of nnU-Net's U-Nets: nnUNetv2_train ... -p "
                "nnUNetPlans, or -p nnUNetResEncUNetMPlans"
            )
        return get_network_from_plans(
            f"{cls.network_class.__module__}.{cls.network_class.__qualname__}",
            architecture,
            configuration_manager.network_arch_init_kwargs_req_import,
            num_input_channels,
            num_output_channels,
            deep_supervision=enable_deep_supervision,
        )


class nnUNetTrainerUMambaBot(_UMambaTrainer):
    """U-Mamba_Bot: nnU-Net's SGD 1e-2 with Nesterov momentum 0.99, weight decay 3e-5, poly schedule, 100 epochs."""

    network_class = UMambaBot


class nnUNetTrainerUMambaEnc(_UMambaTrainer):
    """U-Mamba_Enc: nnU-Net's SGD 1e-2 with Nesterov momentum 0.99, weight decay 3e-5, poly schedule, 100 epochs."""

    network_class = UMambaEnc


class nnUNetTrainerPlainMuon(PluginTrainer):
    """nnU-Net's own network for the plans, with nnUNetTrainerLightMUNet's optimiser: Muon 2e-3 on its kernels,
    AdamW 1e-3 on the rest, weight decay 1e-2, poly schedule, 100 epochs. Deep supervision, as stock.

    It separates the effect of the optimiser from that of the network: with equal budgets only the optimiser
    differs from stock nnU-Net.
    """

    deep_supervision = True
    recipe = UNET_MUON

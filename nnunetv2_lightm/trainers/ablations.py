"""Trainers of the ablation study, Table 3 of the paper, on the paper's network: each with nnUNetTrainerLightMUNet's
recipe, so that the network alone differs."""

from __future__ import annotations

from .lightm_unet import nnUNetTrainerLightMUNet
from .recipes import CONV3_MUON


class nnUNetTrainerLightMUNetConv3(nnUNetTrainerLightMUNet):
    """VSSM -> Conv3: a 3x3(x3) convolution in the place of every VSS Module, trained by Muon like the matrices that it
    replaces."""

    network_options = {"ablation": "conv3"}
    recipe = CONV3_MUON


class nnUNetTrainerLightMUNetSelfAttention(nnUNetTrainerLightMUNet):
    """VSSM -> Self-Attention, in the Bottleneck Block alone."""

    network_options = {"ablation": "self_attention"}


class nnUNetTrainerLightMUNetNoAdjustment(nnUNetTrainerLightMUNet):
    """RVM Layers without adjustment factors, s = 1."""

    network_options = {"ablation": "no_adjustment"}


class nnUNetTrainerLightMUNetNoResidual(nnUNetTrainerLightMUNet):
    """RVM Layers without residual connections."""

    network_options = {"ablation": "no_residual"}

"""Trainers of the ablation study, Table 3 of the paper, on the paper's network: each with nnUNetTrainerLightMUNet's
recipe, AdamW 1e-3, weight decay 1e-2, poly schedule, 100 epochs, so that the network alone differs."""

from __future__ import annotations

from .lightm_unet import nnUNetTrainerLightMUNet


class nnUNetTrainerLightMUNetConv3(nnUNetTrainerLightMUNet):
    """VSSM -> Conv3: a 3x3(x3) convolution in the place of every VSS Module; recipe: AdamW 1e-3."""

    network_options = {"ablation": "conv3"}


class nnUNetTrainerLightMUNetSelfAttention(nnUNetTrainerLightMUNet):
    """VSSM -> Self-Attention, in the Bottleneck Block alone; recipe: AdamW 1e-3."""

    network_options = {"ablation": "self_attention"}


class nnUNetTrainerLightMUNetNoAdjustment(nnUNetTrainerLightMUNet):
    """RVM Layers without adjustment factors, s = 1; recipe: AdamW 1e-3."""

    network_options = {"ablation": "no_adjustment"}


class nnUNetTrainerLightMUNetNoResidual(nnUNetTrainerLightMUNet):
    """RVM Layers without residual connections; recipe: AdamW 1e-3."""

    network_options = {"ablation": "no_residual"}

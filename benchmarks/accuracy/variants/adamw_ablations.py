"""The ablations of the paper's Table 3 with nnUNetTrainerLightMUNetAdamW's recipe, the default of their time.

Not part of the package, whose ablations have the default recipe of today; nnU-Net finds them like
lightm_unet_variants.py.
"""

from __future__ import annotations

from nnunetv2_lightm import trainers
from nnunetv2_lightm.trainers.recipes import ADAMW


class nnUNetTrainerLightMUNetConv3AdamW(trainers.nnUNetTrainerLightMUNetConv3):
    """VSSM -> Conv3."""

    recipe = ADAMW


class nnUNetTrainerLightMUNetSelfAttentionAdamW(trainers.nnUNetTrainerLightMUNetSelfAttention):
    """VSSM -> Self-Attention, in the Bottleneck Block alone."""

    recipe = ADAMW


class nnUNetTrainerLightMUNetNoAdjustmentAdamW(trainers.nnUNetTrainerLightMUNetNoAdjustment):
    """RVM Layers without adjustment factors, s = 1."""

    recipe = ADAMW


class nnUNetTrainerLightMUNetNoResidualAdamW(trainers.nnUNetTrainerLightMUNetNoResidual):
    """RVM Layers without residual connections."""

    recipe = ADAMW

"""nnUNetTrainerLightMUNetAdamW with one thing changed each: what would help it where stock nnU-Net is ahead?

Not part of the package. nnU-Net finds them, with budgets, if nnUNet_extTrainer contains this folder; `study.py` sets
it.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_lightm import trainers
from nnunetv2_lightm.layers import depthwise_conv, upsample
from nnunetv2_lightm.networks import LightMUNet
from nnunetv2_lightm.trainers.lightm_unet import LightMUNetTrainer
from nnunetv2_lightm.trainers.recipes import ADAMW


class nnUNetTrainerLightMUNetLR3e3(trainers.nnUNetTrainerLightMUNetAdamW):
    """Three times the learning rate: AdamW 3e-3."""

    recipe = replace(ADAMW, initial_lr=3e-3)


class nnUNetTrainerLightMUNetLR3e4(trainers.nnUNetTrainerLightMUNetAdamW):
    """A third of the learning rate: AdamW 3e-4."""

    recipe = replace(ADAMW, initial_lr=3e-4)


class nnUNetTrainerLightMUNetSGD(LightMUNetTrainer):
    """Stock nnU-Net's optimiser: SGD 1e-2, Nesterov momentum 0.99, weight decay 3e-5."""


class nnUNetTrainerLightMUNetDeepSupervision(trainers.nnUNetTrainerLightMUNetAdamW):
    """Losses at the resolutions of all Decoder Blocks, with nnU-Net's weights."""

    deep_supervision = True


class nnUNetTrainerLightMUNetTwoDirections(trainers.nnUNetTrainerLightMUNetAdamW):
    """Each scan forward and backward."""

    network_options = {"scan_directions": 2}


class nnUNetTrainerLightMUNetFeatures48(trainers.nnUNetTrainerLightMUNetAdamW):
    """48 channels at full resolution instead of 32, half as many again on every level."""

    network_options = {"features": 48}


class nnUNetTrainerLightMUNetFullSkip(trainers.nnUNetTrainerLightMUNetAdamW):
    """A skip connection at full resolution, from the stem, which the paper's network does not have."""

    @classmethod
    def make_network(
        cls, plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision
    ) -> nn.Module:
        return FullSkipLightMUNet(
            num_input_channels,
            num_output_channels,
            spatial_dims=len(configuration_manager.patch_size),
            strides=configuration_manager.pool_op_kernel_sizes,
        )


class FullSkipLightMUNet(LightMUNet):
    """LightMUNet with a block at full resolution before the head."""

    def __init__(self, input_channels: int, num_classes: int, *, spatial_dims: int, strides, features: int = 32):
        super().__init__(input_channels, num_classes, spatial_dims=spatial_dims, strides=strides, features=features)
        self.decoder.full = FullResolutionBlock(features, spatial_dims)

    def forward(self, image: Tensor) -> Tensor:
        """image: (batch, input_channels, *spatial) -> raw logits, (batch, num_classes, *spatial)."""
        stem = f = self.stem(image)
        skips, sizes = [], []
        for block in self.encoder:
            sizes.append(f.shape[1:-1])
            f = block(f)
            skips.append(f)
        p = self.bottleneck(f)
        for level, block in zip(reversed(range(len(skips))), self.decoder.blocks, strict=True):
            p = upsample(block(p, skips[level]), sizes[level])
        return self.decoder.seg_layers[0](self.decoder.full(p, stem), sizes[0])


class FullResolutionBlock(nn.Module):
    """Equation (4) of the paper on the upsampled map and the stem's, then a pointwise layer that keeps the channels."""

    def __init__(self, channels: int, spatial_dims: int) -> None:
        super().__init__()
        self.dwconv = depthwise_conv(channels, spatial_dims)
        self.scale = nn.Parameter(torch.ones(channels))
        self.mix = nn.Linear(channels, channels)

    def forward(self, p_in: Tensor, skip: Tensor) -> Tensor:
        """p_in, skip: (batch, *spatial, channels) -> the same shape."""
        x = p_in + skip
        return self.mix(F.relu(self.dwconv(x) + self.scale * x))

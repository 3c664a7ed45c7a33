"""nnU-Net's own networks as its planners set them up for large patches."""

from __future__ import annotations

from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

# Six stages in 3D, eight in 2D, never more than 320 and 512 channels.
FEATURES = {2: (32, 64, 128, 256, 512, 512, 512, 512), 3: (32, 64, 128, 256, 320, 320)}
# Residual blocks of each stage of the encoder, in the ResEnc presets (nnU-Net: ResEncUNetPlanner).
RESENC_BLOCKS = (1, 3, 4, 6, 6, 6, 6, 6)


def plain_conv_unet(
    spatial_dims: int, input_channels: int, num_classes: int, *, deep_supervision: bool = False
) -> PlainConvUNet:
    """nnU-Net's default network; spatial_dims: 2 or 3."""
    return PlainConvUNet(
        input_channels=input_channels,
        num_classes=num_classes,
        n_conv_per_stage=2,
        deep_supervision=deep_supervision,
        **planned_architecture(spatial_dims),
    )


def resenc_unet(spatial_dims: int, input_channels: int, num_classes: int) -> ResidualEncoderUNet:
    """The network of nnU-Net's ResEnc presets, without deep supervision; spatial_dims: 2 or 3."""
    architecture = planned_architecture(spatial_dims)
    return ResidualEncoderUNet(
        input_channels=input_channels,
        num_classes=num_classes,
        n_blocks_per_stage=RESENC_BLOCKS[: architecture["n_stages"]],
        **architecture | {"n_conv_per_stage_decoder": 1},
    )


def planned_architecture(spatial_dims: int) -> dict[str, object]:
    """What the planner writes for any of nnU-Net's U-Nets; what an encoder stage holds is left to the caller."""
    conv, norm = {2: (nn.Conv2d, nn.InstanceNorm2d), 3: (nn.Conv3d, nn.InstanceNorm3d)}[spatial_dims]
    features = FEATURES[spatial_dims]
    stages = len(features)
    return {
        "n_stages": stages,
        "features_per_stage": features,
        "conv_op": conv,
        "kernel_sizes": 3,
        "strides": [1] + [2] * (stages - 1),
        "n_conv_per_stage_decoder": 2,
        "conv_bias": True,
        "norm_op": norm,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
    }

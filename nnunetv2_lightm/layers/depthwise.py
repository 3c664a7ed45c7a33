"""Depthwise convolution on channels-last feature maps."""

from __future__ import annotations

from torch import Tensor, nn

from ..ops import depthwise_conv as fused_depthwise_conv
from ..ops import fused_depthwise_usable


class _ChannelsLast:
    """A convolution whose maps are (batch, *spatial, channels).

    The moved axes are exactly PyTorch's channels-last memory format: nothing is copied, and on a CPU its depthwise
    kernels are several times faster in this format; the compiled operator is faster still.
    """

    def forward(self, x: Tensor) -> Tensor:
        if fused_depthwise_usable(x.device.type, self.in_channels):
            return fused_depthwise_conv(x, self.weight, self.bias)
        return super().forward(x.movedim(-1, 1)).movedim(1, -1)


class DepthwiseConv2d(_ChannelsLast, nn.Conv2d):
    """3x3 depthwise convolution; (batch, height, width, channels) in and out."""


class DepthwiseConv3d(_ChannelsLast, nn.Conv3d):
    """3x3x3 depthwise convolution; (batch, z, y, x, channels) in and out."""


def depthwise_conv(channels: int, spatial_dims: int) -> nn.Module:
    """Depthwise convolution (DWConv), kernel 3 per axis, same size, with bias; spatial_dims: 2 or 3."""
    conv = {2: DepthwiseConv2d, 3: DepthwiseConv3d}[spatial_dims]
    return conv(channels, channels, kernel_size=3, padding=1, groups=channels)

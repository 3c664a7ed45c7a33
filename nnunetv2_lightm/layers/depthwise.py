"""Depthwise convolution on channels-last feature maps."""

from __future__ import annotations

from torch import Tensor, nn

from ..ops import constant_in_graphs, fused_depthwise_usable
from ..ops import depthwise_conv as fused_depthwise_conv
from .plain import is_plain, stands_for


class _ChannelsLast:
    """A convolution whose maps are (batch, *spatial, channels).

    The moved axes are exactly PyTorch's channels-last memory format: nothing is copied, and PyTorch's
    depthwise kernels for CPUs are several times faster in it; the compiled operator is faster still.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.fused(x.device.type):
            return fused_depthwise_conv(x, self.weight, self.bias)
        return super().forward(x.movedim(-1, 1)).movedim(1, -1)

    @constant_in_graphs
    def fused(self, device_type: str) -> bool:
        """Whether the compiled operator runs this convolution on the device."""
        return is_plain(self) and fused_depthwise_usable(device_type, self.in_channels)


class DepthwiseConv2d(_ChannelsLast, nn.Conv2d):
    """3x3 depthwise convolution; (batch, height, width, channels) in and out."""


class DepthwiseConv3d(_ChannelsLast, nn.Conv3d):
    """3x3x3 depthwise convolution; (batch, z, y, x, channels) in and out."""


def _settings_are_known(conv: nn.Conv2d | nn.Conv3d) -> bool:
    """As :func:`depthwise_conv` makes it: 3 taps per axis, zero padding, one filter per channel."""
    ones = (1,) * len(conv.kernel_size)
    return (
        conv.kernel_size == (3,) * len(ones)
        and conv.stride == conv.padding == conv.dilation == ones
        and conv.padding_mode == "zeros"
        and conv.groups == conv.in_channels == conv.out_channels
    )


for _conv in (DepthwiseConv2d, DepthwiseConv3d):
    stands_for(_conv, ("weight", "bias"), settings=_settings_are_known)


def depthwise_conv(channels: int, spatial_dims: int) -> nn.Module:
    """Depthwise convolution (DWConv), kernel 3 per axis, same size, with bias; spatial_dims: 2 or 3."""
    conv = {2: DepthwiseConv2d, 3: DepthwiseConv3d}[spatial_dims]
    return conv(channels, channels, kernel_size=3, padding=1, groups=channels)

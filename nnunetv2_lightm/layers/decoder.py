"""The Decoder Block, section 2.4 of the paper."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import gathered_upsample_usable
from ..ops import upsample as gathered_upsample
from .depthwise import depthwise_conv


class DecoderBlock(nn.Module):
    """Equation (4): ``P_out = ReLU(DWConv(P_in + F_D) + s' * (P_in + F_D))``, then half the channels.

    Choices where the paper is silent: s', one number per channel, starts at 1; the channels are halved by a pointwise
    layer before the upsampling (:func:`upsample`), where there are fewer voxels.

    Args:
        channels: Channels of P_in and F_D; half as many leave the block.
        spatial_dims: 2 or 3.
    """

    def __init__(self, channels: int, spatial_dims: int) -> None:
        super().__init__()
        self.dwconv = depthwise_conv(channels, spatial_dims)
        self.scale = nn.Parameter(torch.ones(channels))
        self.halve = nn.Linear(channels, channels // 2)

    def forward(self, p_in: Tensor, skip: Tensor) -> Tensor:
        """p_in, skip: (batch, *spatial, channels) -> (batch, *spatial, channels // 2)."""
        x = p_in + skip
        # In place, to avoid allocating another feature map.
        p_out = F.relu(torch.addcmul(self.dwconv(x), self.scale.to(x.dtype), x), inplace=True)  # (4)
        return self.halve(p_out)


def upsample(x: Tensor, size: Sequence[int]) -> Tensor:
    """Linear interpolation, corners not aligned: (batch, *spatial, channels) -> (batch, *size, channels)."""
    if tuple(x.shape[1:-1]) == tuple(size):
        return x
    if gathered_upsample_usable(x.device.type):
        return gathered_upsample(x, size)
    mode = {4: "bilinear", 5: "trilinear"}[x.ndim]
    return F.interpolate(x.movedim(-1, 1), size=tuple(size), mode=mode).movedim(1, -1)

"""The RVM Layers of the ablation study, Table 3 of the paper: each changes one thing in the paper's layer.

The compiled operator does not cover them: they run on PyTorch's operators.
"""

from __future__ import annotations

from torch import Tensor, nn

from .attention import SelfAttention
from .rvm import RVMLayer


class Conv3(nn.Module):
    """Row "VSSM -> Conv3": a 3x3(x3) convolution, with bias, in the VSS Module's place; its options do not apply."""

    def __init__(self, d_model: int, spatial_dims: int, **vss: int) -> None:
        super().__init__()
        conv = {2: nn.Conv2d, 3: nn.Conv3d}[spatial_dims]
        self.conv = conv(d_model, d_model, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, *spatial, d_model) -> the same shape."""
        return self.conv(x.movedim(-1, 1)).movedim(1, -1)


class VoxelAttention(SelfAttention):
    """Row "VSSM -> Self-Attention": each voxel attends to every other one; the VSS Module's options do not apply.

    There is no position embedding: the depthwise convolutions of the Encoder Blocks already encode positions.
    """

    def __init__(self, d_model: int, spatial_dims: int, **vss: int) -> None:
        super().__init__(d_model)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, *spatial, d_model) -> the same shape."""
        return super().forward(x.flatten(1, -2)).view(x.shape)


class Conv3RVMLayer(RVMLayer):
    """``m = Conv3(LayerNorm(x)) + s * x``."""

    mixer = Conv3


class SelfAttentionRVMLayer(RVMLayer):
    """``m = SelfAttention(LayerNorm(x)) + s * x``."""

    mixer = VoxelAttention


class _UnadjustedRVMLayer(RVMLayer):
    def __init__(self, in_channels: int, out_channels: int, spatial_dims: int, **vss: int) -> None:
        super().__init__(in_channels, out_channels, spatial_dims, **vss)
        self.scale = None


class NoAdjustmentRVMLayer(_UnadjustedRVMLayer):
    """Row "w/o Adjustment factors": ``m = VSSM(LayerNorm(x)) + x``."""

    def mix(self, x: Tensor) -> Tensor:
        return self.vssm(self.norm_in(x)) + x


class NoResidualRVMLayer(_UnadjustedRVMLayer):
    """Row "w/o Residual connections": ``m = VSSM(LayerNorm(x))``; without them there is no adjustment factor either."""

    def mix(self, x: Tensor) -> Tensor:
        return self.vssm(self.norm_in(x))


# The layers of the Encoder Blocks and of the Bottleneck Block. Self-attention is quadratic in the number of voxels,
# so the paper has it only in the bottleneck.
ABLATIONS: dict[str | None, tuple[type[RVMLayer], type[RVMLayer]]] = {
    None: (RVMLayer, RVMLayer),
    "conv3": (Conv3RVMLayer, Conv3RVMLayer),
    "self_attention": (RVMLayer, SelfAttentionRVMLayer),
    "no_adjustment": (NoAdjustmentRVMLayer, NoAdjustmentRVMLayer),
    "no_residual": (NoResidualRVMLayer, NoResidualRVMLayer),
}

"""LightM-UNet as its authors released it: not the network that their paper describes.

Liao, Zhu, Wang, Pan, Wang, Ma: LightM-UNet: Mamba Assists in Lightweight UNet for Medical Image Segmentation.
arXiv:2403.05246, 2024. The paper's text is :mod:`.lightm_unet`; its tables were measured on the code's first revision.

Parameters have the names and shapes of the released code, so its weights load unchanged: ``convInit``, ``down_layers``,
``up_layers``, ``up_samples``, ``conv_final``. Differences from it:

- Any input size works: pooling rounds an odd axis down, and interpolation restores the size of its skip. On sizes
  divisible by 8 the result is that of the released code.
- Each RVM layer, including everything around the scan, computes in float32 whatever autocast says. The released code
  trains in float32 but predicts under float16 autocast, where Mamba's output, which no norm bounds, may overflow.

Kept, because the weights depend on it: the stem of the head revision applies the depthwise convolution before the
pointwise one, so a one-channel image becomes 32 scaled copies of a single filtered image (rank 1).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import Mamba1Block, SelfAttention
from ._autocast import without_autocast
from ._image import require_image

REVISIONS = ("head", "first")
RELEASED_ABLATIONS = ("conv3", "self_attention", "no_adjustment", "no_residual")
RESIDUAL_BLOCKS = (1, 2, 2, 4)  # in the stages at 1, 1/2, 1/4 and 1/8 of the resolution
NORM_GROUPS = 8


class LightMUNetReleased(nn.Module):
    """Stem, four encoder stages, three decoder stages, head; skips are the outputs of the first three encoder stages.

    Args:
        input_channels: Channels of the image.
        num_classes: Segmentation outputs.
        spatial_dims: 2 or 3.
        features: Channels at full resolution, 32 in the released code; a multiple of 8, the groups of GroupNorm.
        revision: "head", the present code, with depthwise convolutions in stem, decoder and head; "first", the first
            commit, with dense ones. The encoder is the same.
        ablation: A row of the paper's Table 3: "conv3", each RVM layer is one dense convolution; "self_attention",
            attention takes the place of Mamba in the last encoder stage; "no_adjustment", s stays 1; "no_residual",
            s stays 0. The last two keep s, frozen, as a parameter. None: the whole network.

    Raises:
        ValueError: if spatial_dims, features, revision or ablation is none of these.

    Examples:
        >>> from nnunetv2_lightm.networks import LightMUNetReleased
        >>> for revision in ("head", "first"):
        ...     network = LightMUNetReleased(1, 3, spatial_dims=3, revision=revision)
        ...     print(revision, sum(parameter.numel() for parameter in network.parameters()))
        head 5015766
        first 6150168
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        spatial_dims: int,
        features: int = 32,
        revision: str = "head",
        ablation: str | None = None,
    ) -> None:
        super().__init__()
        _check(spatial_dims, features, revision, ablation)
        self.input_channels, self.spatial_dims = input_channels, spatial_dims
        first = revision == "first"
        outer_conv = conv if first else depthwise_separable  # in the stem and the head
        decoder_block = FirstDecoderBlock if first else DecoderBlock
        widths = [features * 2**level for level in range(len(RESIDUAL_BLOCKS))]
        narrowing = list(reversed(widths[:-1]))

        self.convInit = outer_conv(input_channels, features, spatial_dims)
        self.down_layers = nn.ModuleList(
            encoder_stage(level, width, spatial_dims, ablation) for level, width in enumerate(widths)
        )
        self.up_layers = nn.ModuleList(nn.Sequential(decoder_block(width, spatial_dims)) for width in narrowing)
        self.up_samples = nn.ModuleList(
            nn.Sequential(conv(2 * width, width, spatial_dims, kernel_size=1)) for width in narrowing
        )
        self.resize = Resize()
        self.conv_final = nn.Sequential(
            nn.GroupNorm(NORM_GROUPS, features),
            nn.ReLU(),
            outer_conv(features, num_classes, spatial_dims, kernel_size=1, bias=True),
        )

    def forward(self, image: Tensor) -> Tensor:
        """image: (batch, input_channels, *spatial) -> raw logits, (batch, num_classes, *spatial).

        Raises:
            ValueError: if the image has other axes or channels, an empty axis, or no floating-point numbers.
        """
        require_image(image, self.input_channels, self.spatial_dims)
        # Tokens of a channels-last map are a view of it: nothing is copied between the convolutions and Mamba.
        x = self.convInit(image).contiguous(memory_format=_channels_last(image.ndim))
        skips = []
        for stage in self.down_layers:
            x = stage(x)
            skips.append(x)
        for up_sample, up_layer, skip in zip(self.up_samples, self.up_layers, reversed(skips[:-1]), strict=True):
            x = up_layer(self.resize(up_sample(x), skip) + skip)
        return self.conv_final(x).contiguous()


def encoder_stage(level: int, channels: int, spatial_dims: int, ablation: str | None) -> nn.Sequential:
    """From the second stage on, an RVM layer that widens the map at the resolution above, then pooling; then residual
    blocks. (batch, channels / 2, *spatial) -> (batch, channels, *(spatial / 2))."""
    last = level == len(RESIDUAL_BLOCKS) - 1
    layer = partial(rvm_layer, spatial_dims=spatial_dims, ablation=ablation)
    widen = nn.Sequential(layer(channels // 2, channels), Halve()) if level else nn.Identity()
    blocks = (ResidualBlock(channels, partial(layer, bottleneck=last)) for _ in range(RESIDUAL_BLOCKS[level]))
    return nn.Sequential(widen, *blocks)


class ResidualBlock(nn.Module):
    """``x + RVM(ReLU(GN(RVM(ReLU(GN(x))))))``.

    Args:
        channels: Channels of input and output.
        layer: Makes an RVM layer from its input and output channels.
    """

    def __init__(self, channels: int, layer: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(NORM_GROUPS, channels)
        self.norm2 = nn.GroupNorm(NORM_GROUPS, channels)
        self.conv1 = layer(channels, channels)
        self.conv2 = layer(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, *spatial) -> the same shape."""
        out = self.conv1(F.relu(self.norm1(x)))
        out = self.conv2(F.relu(self.norm2(out)))
        return x + out


class ReleasedRVMLayer(nn.Module):
    """``m = Mamba(LN(x)) + s * x``; ``Linear(LN(m))``, on the tokens of the map in raster order.

    Unlike in the paper, s is a single number and both LN are one module.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        mixer: Mixes the tokens, (batch, length, in_channels) in and out; None: stock Mamba-1.
        fixed_scale: A value of s that is not learned; None: s is learned and starts at 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        mixer: nn.Module | None = None,
        fixed_scale: float | None = None,
    ) -> None:
        super().__init__()
        scale = torch.tensor([1.0 if fixed_scale is None else fixed_scale])
        self.skip_scale = nn.Parameter(scale, requires_grad=fixed_scale is None)
        self.norm = nn.LayerNorm(in_channels)
        self.mamba = Mamba1Block(in_channels) if mixer is None else mixer
        self.proj = nn.Linear(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, *spatial) -> (batch, out_channels, *spatial), in the parameters' dtype."""
        with without_autocast(x.device.type):
            tokens = x.flatten(2).transpose(1, 2).to(self.skip_scale.dtype)
            m = self.mamba(self.norm(tokens)) + self.skip_scale * tokens
            out = self.proj(self.norm(m))
        return out.transpose(1, 2).unflatten(2, x.shape[2:])


def rvm_layer(
    in_channels: int, out_channels: int, *, spatial_dims: int, ablation: str | None, bottleneck: bool = False
) -> nn.Module:
    """An RVM layer, or its replacement in an ablation; bottleneck: whether it is in the last encoder stage."""
    if ablation == "conv3":
        return _conv_type(spatial_dims)(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
    mixer = SelfAttention(in_channels) if ablation == "self_attention" and bottleneck else None
    fixed_scale = {"no_adjustment": 1.0, "no_residual": 0.0}.get(ablation)
    return ReleasedRVMLayer(in_channels, out_channels, mixer=mixer, fixed_scale=fixed_scale)


class DecoderBlock(nn.Module):
    """Head revision: ``ReLU(GN(conv(ReLU(GN(x))) + s * x))``; conv is depthwise 3x3(x3), then pointwise."""

    def __init__(self, channels: int, spatial_dims: int) -> None:
        super().__init__()
        self.skip_scale = nn.Parameter(torch.ones(1))
        self.norm1 = nn.GroupNorm(NORM_GROUPS, channels)
        self.norm2 = nn.GroupNorm(NORM_GROUPS, channels)
        self.conv = depthwise_separable(channels, channels, spatial_dims)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, *spatial) -> the same shape."""
        out = self.conv(F.relu(self.norm1(x))) + self.skip_scale * x
        return F.relu(self.norm2(out))


class FirstDecoderBlock(nn.Module):
    """First revision: ``x + conv(ReLU(GN(conv(ReLU(GN(x))))))``, dense 3x3(x3), as in SegResNet."""

    def __init__(self, channels: int, spatial_dims: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(NORM_GROUPS, channels)
        self.norm2 = nn.GroupNorm(NORM_GROUPS, channels)
        self.conv1 = conv(channels, channels, spatial_dims)
        self.conv2 = conv(channels, channels, spatial_dims)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, *spatial) -> the same shape."""
        out = self.conv1(F.relu(self.norm1(x)))
        return x + self.conv2(F.relu(self.norm2(out)))


class Halve(nn.Module):
    """Max-pooling by 2 on each axis, except those of a single voxel; odd sizes are rounded down."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, *spatial) -> (batch, channels, *(spatial / 2))."""
        pool = F.max_pool2d if x.ndim == 4 else F.max_pool3d
        return pool(x, kernel_size=[min(2, size) for size in x.shape[2:]])


class Resize(nn.Module):
    """Linear interpolation, corners not aligned, to the size of the skip; a module, so that tools that count see it."""

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(batch, channels, *spatial), (batch, channels, *size) -> (batch, channels, *size)."""
        mode = {4: "bilinear", 5: "trilinear"}[x.ndim]
        return F.interpolate(x, size=skip.shape[2:], mode=mode)


def conv(
    in_channels: int,
    out_channels: int,
    spatial_dims: int,
    *,
    kernel_size: int = 3,
    groups: int = 1,
    bias: bool = False,
) -> nn.Sequential:
    """A convolution that keeps the size, under the name ``conv`` (MONAI's, which the released code is built of)."""
    options = {"kernel_size": kernel_size, "padding": kernel_size // 2, "groups": groups, "bias": bias}
    return nn.Sequential(OrderedDict(conv=_conv_type(spatial_dims)(in_channels, out_channels, **options)))


def depthwise_separable(
    in_channels: int, out_channels: int, spatial_dims: int, *, kernel_size: int = 3, bias: bool = False
) -> nn.Sequential:
    """A depthwise convolution, then a pointwise one."""
    return nn.Sequential(
        conv(in_channels, in_channels, spatial_dims, groups=in_channels, kernel_size=kernel_size, bias=bias),
        conv(in_channels, out_channels, spatial_dims, kernel_size=1, bias=bias),
    )


def _conv_type(spatial_dims: int) -> type[nn.Module]:
    return {2: nn.Conv2d, 3: nn.Conv3d}[spatial_dims]


def _channels_last(ndim: int) -> torch.memory_format:
    return {4: torch.channels_last, 5: torch.channels_last_3d}[ndim]


def _check(spatial_dims: int, features: int, revision: str, ablation: str | None) -> None:
    if spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims is {spatial_dims}; expected 2 or 3")
    if features < 1 or features % NORM_GROUPS:
        raise ValueError(f"features is {features}; expected a multiple of {NORM_GROUPS}, the groups of GroupNorm")
    if revision not in REVISIONS:
        raise ValueError(f"revision is {revision!r}; expected one of {', '.join(map(repr, REVISIONS))}")
    if ablation is not None and ablation not in RELEASED_ABLATIONS:
        raise ValueError(
            f"ablation is {ablation!r}; expected None or one of {', '.join(map(repr, RELEASED_ABLATIONS))}"
        )

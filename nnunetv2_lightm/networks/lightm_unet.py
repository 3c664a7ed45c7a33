"""LightM-UNet as the paper describes it, read top-down with section 2 in hand.

Liao, Zhu, Wang, Pan, Wang, Ma: LightM-UNet: Mamba Assists in Lightweight UNet for Medical Image Segmentation.
arXiv:2403.05246, 2024. The authors' released code is another network.

Equations (1), (2): :class:`nnunetv2_lightm.layers.RVMLayer`; (3): :class:`~nnunetv2_lightm.layers.VSSModule`;
(4): :class:`~nnunetv2_lightm.layers.DecoderBlock`. Inside, feature maps are channels-last: (batch, *spatial, channels).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from ..layers import (
    ABLATIONS,
    DecoderBlock,
    RVMLayer,
    depthwise_conv,
    is_plain,
    stands_for,
    upsample,
)
from ..ops import constant_in_graphs, depthwise_head, depthwise_stem, fused_depthwise_usable
from ._autocast import without_autocast
from ._image import require_image

Strides = Sequence[Sequence[int]]


class LightMUNet(nn.Module):
    """Section 2.1: stem, three Encoder Blocks, Bottleneck Block, three Decoder Blocks, head; skips F_D^l.

    Called as an ordinary module, or by nnU-Net as a plans file's ``network_class_name``. Any input size works:
    pooling rounds an odd axis down, and interpolation restores the size of its skip.

    Args:
        input_channels: Channels of the image.
        num_classes: Segmentation outputs.
        conv_op: nn.Conv2d or nn.Conv3d, as nnU-Net's plans say 2D or 3D.
        spatial_dims: 2 or 3, the plain way to say it. Give exactly one of the two.
        features: Channels at full resolution.
        rvm_layers: RVM layers N_l of each Encoder Block; section 3: 1, 2, 2.
        bottleneck_rvm_layers: RVM layers of the Bottleneck Block; section 2.3: 4.
        expand: Expansion factor lambda of the VSS modules.
        d_state: States per channel of their SSMs.
        scan_directions: 1, 2 or, in 2D, 4; see :class:`~nnunetv2_lightm.layers.VSSModule`.
        strides: nnU-Net's strides of the stages. The first is that of the full resolution, (1, 1, 1); the next ones are
            the Encoder Blocks' pooling, so thin axes are not halved. Surplus ones are ignored, missing ones count as 1.
            None: 2 on every axis of every block, as in the paper.
        ablation: A row of Table 3, a key of :data:`nnunetv2_lightm.layers.ABLATIONS`; None: the network of the paper.
        deep_supervision: Return a list of logits, as nnU-Net's stock trainer expects: full resolution first, then those
            of the lower Decoder Blocks. The paper has none.

    Raises:
        ValueError: if the number of dimensions is ambiguous, strides do not match it, or there is no such ablation.

    Examples:
        >>> import torch
        >>> from nnunetv2_lightm import LightMUNet
        >>> network = LightMUNet(input_channels=1, num_classes=3, spatial_dims=3)
        >>> sum(parameter.numel() for parameter in network.parameters())
        2523875
        >>> network(torch.randn(1, 1, 16, 20, 24)).shape
        torch.Size([1, 3, 16, 20, 24])
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        conv_op: type[nn.Module] | None = None,
        spatial_dims: int | None = None,
        features: int = 32,
        rvm_layers: Sequence[int] = (1, 2, 2),
        bottleneck_rvm_layers: int = 4,
        expand: int = 2,
        d_state: int = 16,
        scan_directions: int = 1,
        strides: Strides | None = None,
        ablation: str | None = None,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        if ablation not in ABLATIONS:
            raise ValueError(f"ablation is {ablation!r}; expected one of {list(ABLATIONS)}")
        dims = _dimensions(conv_op, spatial_dims)
        vss = {"expand": expand, "d_state": d_state, "scan_directions": scan_directions}
        encoder_layer, bottleneck_layer = (partial(layer, spatial_dims=dims, **vss) for layer in ABLATIONS[ablation])
        if not rvm_layers:
            raise ValueError("rvm_layers is empty; at least one Encoder Block is needed, such as (1, 2, 2)")
        widths = [features * 2**level for level in range(len(rvm_layers) + 1)]
        pooling = _pooling(strides, dims, len(rvm_layers))
        self.input_channels, self.spatial_dims = input_channels, dims

        self.stem = Stem(input_channels, features, dims)
        self.encoder = Encoder(
            EncoderBlock(width, count, stride, encoder_layer)
            for width, count, stride in zip(widths, rvm_layers, pooling, strict=False)
        )
        self.bottleneck = nn.Sequential(
            *(bottleneck_layer(widths[-1], widths[-1]) for _ in range(bottleneck_rvm_layers))
        )
        self.decoder = Decoder(widths, num_classes, dims, deep_supervision)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """image: (batch, input_channels, *spatial) -> raw logits, (batch, num_classes, *spatial).

        Raises:
            ValueError: if the image has other axes or channels, an empty axis, or no floating-point numbers.
        """
        require_image(image, self.input_channels, self.spatial_dims)
        f, skips, sizes = self.encoder(self.stem(image))  # F_S, F_D^l: sections 2.1, 2.2
        return self.decoder(self.bottleneck(f), skips, sizes)  # sections 2.3, 2.4


class Stem(nn.Module):
    """Section 2.1: "a depthwise convolution (DWConv) layer for shallow feature extraction", 32 channels.

    The pointwise layer comes first: the other way round, a one-channel image would become ``features`` scaled copies of
    a single filtered image.
    """

    def __init__(self, input_channels: int, features: int, spatial_dims: int) -> None:
        super().__init__()
        self.pointwise = nn.Linear(input_channels, features)
        self.depthwise = depthwise_conv(features, spatial_dims)

    def forward(self, image: Tensor) -> Tensor:
        """(batch, input_channels, *spatial) -> (batch, *spatial, features)."""
        convolution, pointwise = self.depthwise, self.pointwise
        image = image.to(convolution.weight.dtype)
        if not image.requires_grad and self.fused(image.device.type):
            return depthwise_stem(image, [convolution.weight, convolution.bias, pointwise.weight, pointwise.bias])
        # In float32 even under autocast, like that operator: a single hot voxel in a z-scored image can be as large as
        # the root of the number of voxels, and no norm precedes it.
        with without_autocast(image.device.type):
            return convolution(pointwise(image.movedim(1, -1)))

    @constant_in_graphs
    def fused(self, device_type: str) -> bool:
        """Whether the compiled operator runs the stem on the device."""
        return _is_plain_pair(self) and fused_depthwise_usable(device_type, self.pointwise.out_features)


class Encoder(nn.ModuleList):
    """Section 2.2: the Encoder Blocks."""

    def forward(self, f: Tensor) -> tuple[Tensor, list[Tensor], list[Sequence[int]]]:
        """f: F_S. Returns: the last map; F_D^1 ...; the spatial size before each block."""
        sizes, skips = [], []
        for block in self:
            sizes.append(f.shape[1:-1])
            f = block(f)
            skips.append(f)
        return f, skips, sizes


class EncoderBlock(nn.Module):
    """Section 2.2: N_l RVM layers on the flattened map, "with the number of channels increased in the last RVM Layer",
    then max-pooling."""

    def __init__(self, channels: int, num_layers: int, stride: Sequence[int], layer: Callable[[int, int], RVMLayer]):
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"an Encoder Block has {num_layers} RVM layers; it needs at least 1, which widens the map")
        self.layers = Layers(layer(channels, channels) for _ in range(num_layers - 1))
        self.layers.append(layer(channels, 2 * channels))
        self.stride = tuple(stride)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, *spatial, channels) -> (batch, *(spatial / stride), 2 * channels)."""
        return self.layers(x, pool=[min(s, size) for s, size in zip(self.stride, x.shape[1:-1], strict=True)])


class Layers(nn.ModuleList):
    """RVM layers, one after the other."""

    def forward(self, x: Tensor, pool: Sequence[int]) -> Tensor:
        """x: (batch, *spatial, channels); what the last layer returns is max-pooled."""
        *others, last = self
        for layer in others:
            x = layer(x)
        return last(x, pool=pool)


class Decoder(nn.Module):
    """Section 2.4: the Decoder Blocks from the lowest resolution up, then "a DWConv layer to map the number of channels
    to the number of segmentation targets". The softmax is left to the caller, as nnU-Net expects.

    Attributes:
        deep_supervision: nnU-Net's stock trainer switches it off for validation.
    """

    def __init__(self, widths: Sequence[int], num_classes: int, spatial_dims: int, deep_supervision: bool) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        self.blocks = DecoderBlocks(DecoderBlock(width, spatial_dims) for width in reversed(widths[1:]))
        # nnU-Net's name: -pretrained_weights skips keys that contain ".seg_layers.". The first one is
        # the paper's head; without deep supervision the network is the paper's, parameter for parameter.
        levels = widths[:-1] if deep_supervision else widths[:1]
        self.seg_layers = Heads(Head(width, num_classes, spatial_dims) for width in levels)
        self.register_load_state_dict_pre_hook(_drop_unused_heads)

    def forward(self, p: Tensor, skips: list[Tensor], sizes: list[Sequence[int]]) -> Tensor | list[Tensor]:
        """p: Bottleneck's map; skips: F_D^1 ...; sizes: spatial size before each Encoder Block."""
        maps = self.blocks(p, skips, sizes)
        logits = self.seg_layers(maps if self.deep_supervision else maps[:1], sizes)
        return logits if self.deep_supervision else logits[0]


class DecoderBlocks(nn.ModuleList):
    """The Decoder Blocks, and the upsampling between them."""

    def forward(self, p: Tensor, skips: list[Tensor], sizes: list[Sequence[int]]) -> list[Tensor]:
        """As :meth:`Decoder.forward`. Returns: each block's map, the highest resolution first."""
        maps = []
        for level, block in zip(reversed(range(len(self))), self, strict=True):
            maps.insert(0, block(p, skips[level]))
            p = upsample(maps[0], sizes[level]) if level else maps[0]
        return maps


class Heads(nn.ModuleList):
    """The head of each resolution."""

    def forward(self, maps: list[Tensor], sizes: list[Sequence[int]]) -> list[Tensor]:
        """maps: the blocks' maps, the highest resolution first. Returns: their logits."""
        return [head(p, size) for head, p, size in zip(self, maps, sizes)]


class Head(nn.Module):
    """Upsampling, depthwise 3x3(x3), then pointwise to the classes; raw logits, channels first."""

    def __init__(self, channels: int, num_classes: int, spatial_dims: int) -> None:
        super().__init__()
        self.depthwise = depthwise_conv(channels, spatial_dims)
        self.pointwise = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """(batch, *spatial, channels) -> (batch, num_classes, *size), contiguous."""
        convolution, pointwise = self.depthwise, self.pointwise
        if self.fused(x.device.type):
            operands = [convolution.weight, convolution.bias, pointwise.weight, pointwise.bias]
            return depthwise_head(x, size, operands)
        return pointwise(convolution(upsample(x, size))).movedim(-1, 1).contiguous()

    @constant_in_graphs
    def fused(self, device_type: str) -> bool:
        """Whether the compiled operator runs the head on the device."""
        return _is_plain_pair(self) and fused_depthwise_usable(device_type, self.pointwise.in_features)


for _pair in (Stem, Head):
    stands_for(_pair, children=("pointwise", "depthwise"))


def _is_plain_pair(module: Stem | Head) -> bool:
    """Whether an operator may stand for a stem or head."""
    return is_plain(module) and module.pointwise.bias is not None


def _dimensions(conv_op: type[nn.Module] | None, spatial_dims: int | None) -> int:
    if (conv_op is None) == (spatial_dims is None):
        raise ValueError(f"give one of conv_op and spatial_dims; given: conv_op={conv_op}, spatial_dims={spatial_dims}")
    dims = spatial_dims if conv_op is None else {nn.Conv2d: 2, nn.Conv3d: 3}.get(conv_op)
    if dims not in (2, 3):
        raise ValueError(f"conv_op={conv_op}, spatial_dims={spatial_dims}; expected nn.Conv2d or 2, nn.Conv3d or 3")
    return dims


def _pooling(strides: Strides | None, dims: int, blocks: int) -> list[tuple[int, ...]]:
    """The max-pooling strides of the Encoder Blocks."""
    if strides is None:
        return [(2,) * dims] * blocks
    # nnU-Net writes an int for a stride that is the same on every axis.
    stages = [(s,) * dims if isinstance(s, int) else tuple(s) for s in strides]
    if any(len(s) != dims for s in stages) or any(x < 1 for s in stages for x in s):
        raise ValueError(f"strides are {list(strides)}; expected {dims} positive numbers for each stage")
    if not stages or any(x != 1 for x in stages[0]):
        raise ValueError(f"strides are {list(strides)}; the first stage is the full resolution, its stride must be 1")
    pooling = stages[1 : blocks + 1]
    return pooling + [(1,) * dims] * (blocks - len(pooling))


def _drop_unused_heads(module: Decoder, state_dict: dict, prefix: str, *_: object) -> None:
    """A network trained with deep supervision predicts without it: nnU-Net rebuilds it and loads strictly."""
    if len(module.seg_layers) == 1:
        head, others = f"{prefix}seg_layers.0.", f"{prefix}seg_layers."
        for key in [k for k in state_dict if k.startswith(others) and not k.startswith(head)]:
            del state_dict[key]

"""The networks of the paper's Tables 1, 2 and 3, and what the paper prints about them.

Every printed number follows from these networks (:mod:`.paper_convention`), except for one misprint. Two more networks
are listed below the paper's: the head of its released code, and the one that its text describes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from ..networks import LightMUNet, LightMUNetReleased, UMambaBot, segresnet, swin_unetr, unetr
from .nnunet_network import plain_conv_unet, planned_architecture


@dataclass(frozen=True)
class Input:
    """The input of a table's networks.

    Attributes:
        batch: Number of samples.
        channels: Image channels.
        size: Spatial size, in voxels.
        num_classes: Segmentation outputs.
    """

    batch: int
    channels: int
    size: tuple[int, ...]
    num_classes: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a sample, (channels, *spatial)."""
        return self.channels, *self.size

    @property
    def spatial_dims(self) -> int:
        return len(self.size)


@dataclass(frozen=True)
class Row:
    """A network of a table.

    Attributes:
        model: Its name in the paper, or ours.
        build: Makes the network for an input.
        params: What the paper prints, "Params(M)"; None: the paper does not have it.
        gflops: What the paper prints, "GFLOPs".
        is_paper_network: It can be counted as the paper counted; the network of the text was never released.
    """

    model: str
    build: Callable[[Input], nn.Module]
    params: str | None = None
    gflops: str | None = None
    is_paper_network: bool = True


@dataclass(frozen=True)
class Table:
    """A table of the paper; title: data set and what is compared."""

    number: int
    title: str
    input: Input
    rows: tuple[Row, ...]


def _nnunet(given: Input) -> nn.Module:
    return plain_conv_unet(given.spatial_dims, given.channels, given.num_classes, deep_supervision=True)


def _umamba_bot(given: Input) -> nn.Module:
    return UMambaBot(
        input_channels=given.channels,
        num_classes=given.num_classes,
        n_blocks_per_stage=2,
        deep_supervision=True,
        **planned_architecture(given.spatial_dims),
    )


def _monai(make: Callable[..., nn.Module]) -> Callable[[Input], nn.Module]:
    return lambda given: make(given.channels, given.num_classes, given.size)


def _released(given: Input, **options: str) -> nn.Module:
    return LightMUNetReleased(given.channels, given.num_classes, spatial_dims=given.spatial_dims, **options)


def _text(given: Input) -> nn.Module:
    return LightMUNet(given.channels, given.num_classes, spatial_dims=given.spatial_dims)


FIRST, HEAD, TEXT = "LightM-UNet", "LightM-UNet, released code, head", "LightM-UNet, the paper's text"
# The paper's row is the first public revision; these two are not in the paper.
_OTHERS = (
    Row(HEAD, partial(_released, revision="head")),
    Row(TEXT, _text, is_paper_network=False),
)
_IN_3D = Input(batch=2, channels=1, size=(128, 128, 128), num_classes=3)
_IN_2D = Input(batch=12, channels=3, size=(512, 512), num_classes=2)
_first = partial(_released, revision="first")

TABLES = (
    Table(
        1,
        "LiTS, 3D networks",
        _IN_3D,
        (
            Row("nnU-Net", _nnunet, "88.62", "7240.26"),
            Row("SegResNet", _monai(segresnet), "18.79", "1158.30"),
            Row("UNETR", _monai(unetr), "92.62", "1891.35"),
            Row("SwinUNETR", _monai(swin_unetr), "61.99", "1570.32"),
            Row("U-Mamba", _umamba_bot, "173.53", "18057.20"),
            Row(FIRST, _first, "1.87", "457.62"),
            *_OTHERS,
        ),
    ),
    Table(
        2,
        "Montgomery & Shenzhen, 2D networks",
        _IN_2D,
        (
            Row("nnU-Net", _nnunet, "126.56", "5594.98"),
            Row("SegResNet", _monai(segresnet), "6.29", "748.96"),
            Row("UNETR", _monai(unetr), "87.51", "1267.53"),
            Row("SwinUNETR", _monai(swin_unetr), "25.12", "909.26"),
            Row("U-Mamba", _umamba_bot, "244.10", "12521.27"),
            Row(FIRST, _first, "1.09", "267.19"),
            *_OTHERS,
        ),
    ),
    Table(
        3,
        "LiTS, ablations of the RVM layer",
        _IN_3D,
        (
            Row("VSSM -> Conv3", partial(_first, ablation="conv3"), "18.79", "1513.44"),
            Row("VSSM -> Self-Attention", partial(_first, ablation="self_attention"), "3.44", "470.50"),
            Row("w/o adjustment factors", partial(_first, ablation="no_adjustment"), "1.87", "457.62"),
            Row("w/o residual connections", partial(_first, ablation="no_residual"), "1.87", "457.62"),
            Row(FIRST, _first, "1.87", "457.62"),
        ),
    ),
)

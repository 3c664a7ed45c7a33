"""MONAI's SegResNet, UNETR and Swin UNETR for any image size, with the options of the LightM-UNet paper's Table 1.

MONAI (extra ``baselines``) is imported when a network is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch.nn.functional as F
from torch import Tensor, nn

from ..extras import import_extra
from ._image import require_image


class PaddedNetwork(nn.Module):
    """Zero-pads an image on both sides to a size that a network accepts, and crops the logits back.

    Zero is the mean of a normalised image; nnU-Net pads with it too if an image is smaller than the patch.

    Args:
        network: Maps (batch, channels, *spatial) to logits of the same spatial size.
        input_channels: Channels of the image.
        spatial_dims: 2 or 3.
        multiple: Each axis of the padded image is a multiple of this.
        min_cells: The padded image has at least this many blocks of multiple x multiple (x multiple) voxels.
        size: The only padded size that the network accepts; None: any.
    """

    def __init__(
        self,
        network: nn.Module,
        input_channels: int,
        spatial_dims: int,
        multiple: int,
        *,
        min_cells: int = 1,
        size: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.input_channels, self.spatial_dims = input_channels, spatial_dims
        self.multiple, self.min_cells = multiple, min_cells
        self.size = None if size is None else tuple(size)

    def forward(self, image: Tensor) -> Tensor:
        """image: (batch, channels, *spatial) -> raw logits, (batch, num_classes, *spatial).

        Raises:
            ValueError: if the image has other axes or channels, an empty axis, or no floating-point numbers; if the
                network accepts a single size, and the image does not pad to it.
        """
        require_image(image, self.input_channels, self.spatial_dims)
        given = image.shape[2:]
        padded = padded_size(given, self.multiple, self.min_cells)
        if self.size not in (None, padded):
            raise ValueError(
                f"{type(self.network).__name__} was built for images of {self.size} voxels, or smaller by less than "
                f"{self.multiple} on an axis; this one has {tuple(given)}. Build it with patch_size={tuple(given)}"
            )
        before = [(p - g) // 2 for p, g in zip(padded, given, strict=True)]
        after = [p - g - b for p, g, b in zip(padded, given, before, strict=True)]
        # F.pad begins with the last axis.
        pads = [pad for pair in zip(reversed(before), reversed(after), strict=True) for pad in pair]
        logits = self.network(F.pad(image, pads) if any(pads) else image)
        return logits[(..., *(slice(b, b + g) for b, g in zip(before, given, strict=True)))]


def padded_size(size: Sequence[int], multiple: int, min_cells: int = 1) -> tuple[int, ...]:
    """The size rounded up to multiples; the last axis is lengthened to reach ``min_cells`` blocks of such voxels."""
    cells = [-(-length // multiple) for length in size]
    cells[-1] = max(cells[-1], -(-min_cells // prod(cells[:-1])))
    return tuple(multiple * count for count in cells)


def segresnet(input_channels: int, num_classes: int, patch_size: Sequence[int], **options: object) -> PaddedNetwork:
    """SegResNet (Myronenko 2018, arXiv:1810.11654), 32 filters; takes any size once it is built.

    Args:
        input_channels: Channels of the image.
        num_classes: Segmentation outputs.
        patch_size: Voxels of the image on each axis, 2D or 3D.
        **options: Other arguments of MONAI's class.

    Raises:
        ImportError: if MONAI is not installed.
    """
    options = {"init_filters": 32, "blocks_down": (1, 2, 2, 4), "blocks_up": (1, 1, 1), **options}
    network = _build("SegResNet", input_channels, num_classes, patch_size, options)
    return PaddedNetwork(network, input_channels, len(patch_size), multiple=8)  # halved three times


def unetr(input_channels: int, num_classes: int, patch_size: Sequence[int], **options: object) -> PaddedNetwork:
    """UNETR (Hatamizadeh et al. 2022, arXiv:2103.10504), 16 features, ViT-B/16; accepts only patches of that size,
    because its position embeddings are learned.

    Arguments and errors are :func:`segresnet`'s.
    """
    size = padded_size(patch_size, multiple=16)  # ViT's patches
    network = _build(
        "UNETR", input_channels, num_classes, patch_size, {"feature_size": 16, "img_size": size, **options}
    )
    for block in network.vit.blocks:
        # The cross-attention is never called, and DDP fails on its parameters without a gradient (MONAI #8845).
        block.norm_cross_attn, block.cross_attn = nn.Identity(), nn.Identity()
    return PaddedNetwork(network, input_channels, len(patch_size), multiple=16, size=size)


def swin_unetr(input_channels: int, num_classes: int, patch_size: Sequence[int], **options: object) -> PaddedNetwork:
    """Swin UNETR (Hatamizadeh et al. 2022, arXiv:2201.01266), 48 features; takes any size once it is built.

    Arguments and errors are :func:`segresnet`'s.
    """
    network = _build("SwinUNETR", input_channels, num_classes, patch_size, {"feature_size": 48, **options})
    # Halved five times; with a single voxel left, the instance norm has nothing to normalise and fails.
    return PaddedNetwork(network, input_channels, len(patch_size), multiple=32, min_cells=2)


def _build(name: str, input_channels: int, num_classes: int, patch_size: Sequence[int], options: dict) -> nn.Module:
    """MONAI's network of that name."""
    network = getattr(import_extra("monai.networks.nets", name), name)
    return network(spatial_dims=len(patch_size), in_channels=input_channels, out_channels=num_classes, **options)

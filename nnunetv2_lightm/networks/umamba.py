"""U-Mamba: nnU-Net's residual U-Net with Mamba over the voxels, at the bottleneck (Bot) or in each encoder stage (Enc).

Ma, Li, Wang: U-Mamba: Enhancing Long-range Dependency for Biomedical Image Segmentation. arXiv:2401.04722, 2024,
section 2 and figure 1. Choices that the paper leaves open follow the authors' first public code (January 2024), whose
parameters Table 1 of the LightM-UNet paper counts.

Encoder, decoder, deep supervision and initialisation are dynamic-network-architectures', as in nnU-Net itself.
"""

from __future__ import annotations

from dynamic_network_architectures.architectures.unet import ResidualUNet
from torch import Tensor, nn

from ..layers import Mamba1Block
from ._autocast import without_autocast
from ._image import require_image


class MambaLayer(nn.Module):
    """The second half of the paper's U-Mamba block: LayerNorm, then Mamba, over the voxels in raster order.

    The residual blocks before it are the first half. Its output has no residual connection. Like the authors' code it
    computes in float32 under autocast: nothing bounds Mamba's output, which float16 may not hold.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.mamba = Mamba1Block(channels)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, channels, *spatial) -> the same shape, in the parameters' dtype."""
        with without_autocast(x.device.type):
            tokens = x.flatten(2).transpose(1, 2).to(self.norm.weight.dtype)
            out = self.mamba(self.norm(tokens))
        return out.transpose(1, 2).unflatten(2, x.shape[2:])


class _UMamba(ResidualUNet):
    """What both variants share.

    Args:
        **architecture: The arguments of ResidualUNet, as nnU-Net's plans files hold them for residual encoder U-Nets.
    """

    def __init__(self, **architecture: object) -> None:
        super().__init__(**architecture)
        self.input_channels = architecture["input_channels"]
        self.spatial_dims = {nn.Conv2d: 2, nn.Conv3d: 3}[architecture["conv_op"]]


class UMambaBot(_UMamba):
    """U-Mamba_Bot: Mamba after the last stage of the encoder alone; arguments as nnU-Net's ResidualUNet."""

    def __init__(self, **architecture: object) -> None:
        super().__init__(**architecture)
        self.mamba_layer = MambaLayer(self.encoder.output_channels[-1])

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """image: (batch, input_channels, *spatial), each axis a multiple of the product of its strides.

        Returns: raw logits, (batch, num_classes, *spatial); with deep supervision a list of them, the largest first.

        Raises:
            ValueError: if the image has other axes or channels, an empty axis, or no floating-point numbers.
        """
        require_image(image, self.input_channels, self.spatial_dims)
        *skips, bottleneck = self.encoder(image)
        return self.decoder([*skips, self.mamba_layer(bottleneck)])


class UMambaEnc(_UMamba):
    """U-Mamba_Enc: Mamba after every stage of the encoder; its output is the skip as well."""

    def __init__(self, **architecture: object) -> None:
        super().__init__(**architecture)
        self.mamba_layers = nn.ModuleList(MambaLayer(channels) for channels in self.encoder.output_channels)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """As :meth:`UMambaBot.forward`."""
        require_image(image, self.input_channels, self.spatial_dims)
        x = self.encoder.stem(image)
        skips = []
        for stage, mamba_layer in zip(self.encoder.stages, self.mamba_layers, strict=True):
            x = mamba_layer(stage(x))
            skips.append(x)
        return self.decoder(skips)

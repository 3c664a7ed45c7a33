"""Networks: ordinary torch modules that return raw logits."""

from .lightm_unet import LightMUNet
from .lightm_unet_released import LightMUNetReleased
from .monai_networks import segresnet, swin_unetr, unetr
from .umamba import UMambaBot, UMambaEnc

__all__ = ["LightMUNet", "LightMUNetReleased", "UMambaBot", "UMambaEnc", "segresnet", "swin_unetr", "unetr"]

"""Networks: ordinary torch modules that return raw logits."""

from .lightm_unet import LightMUNet
from .monai_networks import segresnet, swin_unetr, unetr
from .umamba import UMambaBot, UMambaEnc

__all__ = ["LightMUNet", "UMambaBot", "UMambaEnc", "segresnet", "swin_unetr", "unetr"]

"""Networks: ordinary torch modules that return raw logits."""

from .lightm_unet import LightMUNet
from .lightm_unet_released import LightMUNetReleased

__all__ = ["LightMUNet", "LightMUNetReleased"]

"""Networks: ordinary torch modules that return raw logits."""

from .lightm_unet import LightMUNet

__all__ = ["LightMUNet"]

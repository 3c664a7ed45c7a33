"""Segments images with a trained LightM-UNet in one file: no PyTorch, no nnU-Net.

>>> from lightm_runtime import load, segment
>>> model = load("liver.lightm")
>>> segmentation = segment(model, ["ct.nii.gz"])
>>> segmentation.volumes_ml
{'liver': 1512.3, 'tumour': 12.9}
"""

from .bundle import BundleError
from .engine import Cancelled, EngineError, LoadedModel
from .faults import ImageError
from .segmentation import Segmentation, load, segment

__all__ = [
    "BundleError",
    "Cancelled",
    "EngineError",
    "ImageError",
    "LoadedModel",
    "Segmentation",
    "load",
    "segment",
]

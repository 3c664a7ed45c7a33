"""PNG, BMP and JPEG, read by imageio as skimage reads them for nnU-Net (natural_image_reader_writer.py)."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .faults import ImageError

KINDS = {".png": "PNG", ".bmp": "BMP", ".jpg": "JPEG", ".jpeg": "JPEG"}
# What Pillow raises on files that are damaged, truncated or of another format.
_DAMAGE = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error)


def read_flat(path: Path) -> sitk.Image:
    """Read one channel, or three or four colours.

    Raises:
        ImageError: if the file is not what its name says, truncated, damaged, too large, or one that nnU-Net does not
            read: grey with opacity, or an animation.
    """
    import imageio.v3 as imageio  # most users' images are volumes
    from PIL import Image

    kind = KINDS[path.suffix.lower()]
    try:
        with Image.open(path, formats=(kind,)) as image:
            frames = getattr(image, "n_frames", 1)
            image.verify()  # PNG: the checksums, which reading the pixels leaves out
        values = imageio.imread(path, plugin="pillow") if frames == 1 else None
    except (*_DAMAGE, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: cannot be read as {kind}, is damaged or truncated: {error}") from error
    if values is None:
        raise ImageError(f"{path}: is an animation of {frames} images; save one of them")
    if values.ndim == 3 and values.shape[-1] not in (3, 4):
        raise ImageError(
            f"{path}: is grey with transparency, which nnU-Net does not read: save it without transparency"
        )
    return as_image(values, has_colours=values.ndim == 3)


def as_image(values: np.ndarray, *, has_colours: bool) -> sitk.Image:
    """([z,] y, x[, colours]) in a type that SimpleITK has, and the order of this machine's bytes."""
    if values.dtype == bool:
        values = values.astype(np.uint8)
    if values.dtype == np.float16:
        values = values.astype(np.float32)
    values = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    return sitk.GetImageFromArray(values, isVector=has_colours)

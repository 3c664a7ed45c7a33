"""BMP with the values that skimage gives nnU-Net: SimpleITK makes three channels of grey, and takes truncated files."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .faults import ImageError

FILE_HEADER, INFO_HEADER = 14, 40
BITS = (1, 4, 8, 24, 32)


def read_bmp(path: Path) -> sitk.Image:
    """Read one channel where the colours are the grey ones in their order, else three.

    Raises:
        ImageError: if the file is no BMP, compressed, truncated, or has other pixels than 1, 4, 8, 24 or 32 bits.
    """
    content = path.read_bytes()
    if not content.startswith(b"BM") or len(content) < FILE_HEADER + INFO_HEADER:
        raise ImageError(f"{path}: cannot be read as BMP: it does not begin as one")
    begin, header_bytes, width, height, _, bits, compression = struct.unpack_from("<IIiiHHI", content, 10)
    (colours,) = struct.unpack_from("<I", content, 46)
    if header_bytes < INFO_HEADER or compression != 0 or bits not in BITS or colours > 2**bits:
        raise ImageError(f"{path}: is a BMP of {bits} bits, compressed in way {compression}: save it as PNG")
    if width < 1 or height == 0:
        raise ImageError(f"{path}: has a damaged header: {width} by {height} pixels")
    row_bytes = (width * bits + 31) // 32 * 4
    rows = content[begin : begin + row_bytes * abs(height)]
    if begin < FILE_HEADER + header_bytes or len(rows) < row_bytes * abs(height):
        missing = row_bytes * abs(height) - len(rows)
        raise ImageError(f"{path}: is truncated: {missing} bytes of its pixels are missing")
    stored = np.frombuffer(rows, np.uint8).reshape(abs(height), row_bytes)
    stored = stored[::-1] if height > 0 else stored  # from the bottom up, unless the height is negative
    if bits > 8:
        bytes_each = bits // 8
        pixels = stored[:, : width * bytes_each].reshape(abs(height), width, bytes_each)[:, :, 2::-1]  # from BGR
    else:
        palette = content[FILE_HEADER + header_bytes :][: 4 * (colours or 2**bits)]
        pixels = _of_palette(path, _indices(stored, bits)[:, :width], palette)
    return sitk.GetImageFromArray(np.ascontiguousarray(pixels), isVector=pixels.ndim == 3)


def _indices(stored: np.ndarray, bits: int) -> np.ndarray:
    """(rows, columns and those that fill up a row) of one byte each."""
    if bits == 8:
        return stored
    digits = np.unpackbits(stored, axis=1).reshape(len(stored), -1, bits)
    return np.packbits(digits, axis=2)[:, :, 0] >> (8 - bits)


def _of_palette(path: Path, indices: np.ndarray, palette: bytes) -> np.ndarray:
    """As Pillow: (y, x) of indices where they are the grey values, in one bit 0 and 1; else (y, x, RGB)."""
    colours = np.frombuffer(palette[: len(palette) // 4 * 4], np.uint8).reshape(-1, 4)[:, 2::-1]
    if indices.max() >= len(colours):
        raise ImageError(f"{path}: is damaged: a pixel has colour {indices.max()} of {len(colours)}")
    greys = np.array([0, 255]) if len(colours) == 2 else np.arange(len(colours))
    return indices if (colours == greys[:, None]).all() else colours[indices]

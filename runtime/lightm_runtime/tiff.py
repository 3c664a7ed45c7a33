"""TIFF, read by tifffile as nnU-Net's readers do; it logs what it could not read, and returns the rest."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from .faults import ImageError
from .flat import as_image

if TYPE_CHECKING:
    from tifffile import TiffPageSeries

# What tifffile, and the codecs that it calls, raise on damaged files.
_DAMAGE = (OSError, ValueError, RuntimeError, LookupError, TypeError, ZeroDivisionError, struct.error)


def read_tiff(path: Path) -> sitk.Image:
    """Read all planes of one image, ([z,] y, x), or the colours of one plane.

    Raises:
        ImageError: if the file is truncated, damaged, no TIFF, compressed in a way that needs imagecodecs, which is not
            installed, or holds several images.
    """
    with _series_of(path) as series:
        values = series.asarray()
    colours = series.axes.find("S")
    planes = [length for axis, length in zip(series.axes, series.shape) if axis not in "SYX"]
    if len(planes) > 1 or (planes and colours >= 0):
        raise ImageError(
            f"{path}: is a stack of {' by '.join(map(str, planes))} planes; one axis of planes of one channel is "
            "needed: save each channel or time alone"
        )
    return as_image(values if colours < 0 else np.moveaxis(values, colours, -1), has_colours=colours >= 0)


def is_one_plane(path: Path) -> bool:
    """By the header. Raises ImageError as `read_tiff`."""
    with _series_of(path) as series:
        return not set(series.axes) - set("SYX")


@contextmanager
def _series_of(path: Path) -> Iterator[TiffPageSeries]:
    import tifffile  # most users' images are other volumes

    complaints = _Complaints()
    logger = logging.getLogger("tifffile")
    logger.addHandler(complaints)
    try:
        with tifffile.TiffFile(path) as file:
            if len(file.series) != 1:
                raise ImageError(f"{path}: has pages of different sizes or kinds; save those of one image alone")
            yield file.series[0]
    except _DAMAGE as error:
        if "imagecodecs" in str(error):
            raise ImageError(f"{path}: is compressed ({error}): pip install imagecodecs") from error
        raise ImageError(f"{path}: cannot be read as TIFF: {error}") from error
    finally:
        logger.removeHandler(complaints)
    if complaints.texts:
        raise ImageError(f"{path}: is truncated or damaged: {complaints.texts[0]}")


class _Complaints(logging.Handler):
    """Collects what tifffile logs of a file instead of raising it."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())

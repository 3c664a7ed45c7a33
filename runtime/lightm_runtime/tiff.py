"""TIFF, read by tifffile as nnU-Net's readers do; it logs what it could not read, and returns the rest."""

from __future__ import annotations

import logging
import threading
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


def read_tiff(path: Path) -> sitk.Image:
    """Read all planes of one image, ([z,] y, x), or the colours of one plane.

    Raises:
        ImageError: if the file is truncated, damaged, no TIFF, compressed in a way that needs imagecodecs, which is not
            installed, or holds several images.
    """
    with _series_of(path) as series:
        # Codecs in threads of their own would log there, where `_Complaints` does not hear them.
        values = series.asarray(maxworkers=1)
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

    complaints = _Complaints(path)
    logger = logging.getLogger("tifffile")
    logger.addHandler(complaints)
    try:
        with tifffile.TiffFile(path) as file:
            found = file.series
            # A damaged header may ask for any number of steps: what is logged of it counts before a pixel is read.
            complaints.require_none()
            if len(found) != 1:
                raise ImageError(f"{path}: has pages of different sizes or kinds; save those of one image alone")
            yield found[0]
            complaints.require_none()
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # whatever a damaged file provokes in tifffile and the codecs that it calls
        if "imagecodecs" in str(error):
            raise ImageError(f"{path}: is compressed ({error}): pip install imagecodecs") from error
        raise ImageError(f"{path}: cannot be read as TIFF: {str(error) or type(error).__name__}") from error
    finally:
        logger.removeHandler(complaints)


class _Complaints(logging.Handler):
    """Collects what tifffile logs instead of raising it, of the file that this thread reads."""

    def __init__(self, path: Path) -> None:
        super().__init__(logging.ERROR)
        self.path, self.reader = path, threading.get_ident()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self.reader:
            self.texts.append(record.getMessage())

    def require_none(self) -> None:
        """Raises ImageError with the first complaint."""
        if self.texts:
            raise ImageError(f"{self.path}: is truncated or damaged: {self.texts[0]}")

"""TIFF files, read by tifffile as in nnU-Net's readers; it logs what it could not read and returns the rest."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .bounds import memory_for
from .faults import ImageFault

ENDINGS = (".tif", ".tiff")
_COLOURS = (3, 4)


def read_tiff(path: Path, *, is_one_channel: bool) -> tuple[np.ndarray, int, int]:
    """All values, ([z,] y, x[, channels]), the number of channels, and of images, of which nnU-Net takes the first.

    Args:
        path: The file.
        is_one_channel: Whether a first axis of 3 or 4 can only be planes. Else it is the channels of a `.tif`, as for
            the reader that nnU-Net tries first (nnU-Net: NaturalImage2DIO; scikit-image moves such an axis to the end).
            A last axis of 3 or 4 is colours, but in `.tiff`, which is always a volume (nnU-Net: Tiff3DIO).
    Raises:
        ImageFault: if the file is truncated or damaged, or does not fit into memory.
    """
    import tifffile  # nnU-Net brings it, and few data sets need it

    with _complaints(path) as complaints:
        try:
            with tifffile.TiffFile(path) as file:
                images, series = len(file.series), file.series[0]
                what = f"{'x'.join(map(str, series.shape))} values of {series.dtype}"
                # A damaged header may ask for any number of steps: what is logged of it counts before a pixel is read.
                complaints.require_none()
                with memory_for(path, 2 * math.prod(series.shape) * series.dtype.itemsize, what=what):
                    values = series.asarray(maxworkers=1)
        except (ImageFault, MemoryError):
            raise
        except Exception as error:  # whatever a damaged file provokes in tifffile and the codecs that it calls
            raise ImageFault(path, f"cannot be read as TIFF: {str(error) or type(error).__name__}") from error
        complaints.require_none()
    place = series.axes.find("S")
    if values.ndim == 3:
        if path.suffix.lower() == ".tiff":
            place = -1
        elif values.shape[2] in _COLOURS:
            place = 2
        else:
            place = 0 if values.shape[0] in _COLOURS and not is_one_channel else -1
    if place < 0:
        return values, 1, images
    return np.moveaxis(values, place, -1), values.shape[place], images


class _Complaints(logging.Handler):
    """Collects the errors that tifffile logs instead of raising them, of the file that this thread reads."""

    def __init__(self, path: Path) -> None:
        super().__init__(logging.ERROR)
        self.path, self.reader = path, threading.get_ident()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self.reader:
            self.texts.append(record.getMessage())

    def require_none(self) -> None:
        """Raises ImageFault with the first complaint."""
        if self.texts:
            raise ImageFault(self.path, f"is damaged or truncated: {self.texts[0]}")


@contextmanager
def _complaints(path: Path) -> Iterator[_Complaints]:
    complaints, logger = _Complaints(path), logging.getLogger("tifffile")
    logger.addHandler(complaints)
    try:
        yield complaints
    finally:
        logger.removeHandler(complaints)

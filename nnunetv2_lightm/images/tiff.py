"""TIFF files, read by tifffile as in nnU-Net's readers; it logs what it could not read and returns the rest."""

from __future__ import annotations

import logging
import math
import struct
from pathlib import Path

import numpy as np

from .bounds import memory_for
from .faults import ImageFault

ENDINGS = (".tif", ".tiff")
# What tifffile, and the codecs that it calls, raise on damaged files.
_DAMAGE = (OSError, ValueError, RuntimeError, LookupError, TypeError, ZeroDivisionError, struct.error)


def read_tiff(path: Path) -> tuple[np.ndarray, int]:
    """All values, ([z,] y, x[, colours]), and the number of colours, 1 where there are none.

    Raises:
        ImageFault: if the file is truncated or damaged, does not fit into memory, or is not a single image.
    """
    import tifffile  # nnU-Net brings it, and few data sets need it

    complaints = _Complaints()
    logger = logging.getLogger("tifffile")
    logger.addHandler(complaints)
    try:
        with tifffile.TiffFile(path) as file:
            if len(file.series) != 1:
                raise ImageFault(path, f"holds {len(file.series)} images, of different sizes; nnU-Net takes the first")
            (series,) = file.series
            what = f"{'x'.join(map(str, series.shape))} values of {series.dtype}"
            with memory_for(path, 2 * math.prod(series.shape) * series.dtype.itemsize, what=what):
                values = series.asarray()
    except ImageFault:
        raise
    except _DAMAGE as error:
        raise ImageFault(path, f"cannot be read as TIFF: {error}") from error
    finally:
        logger.removeHandler(complaints)
    if complaints.texts:
        raise ImageFault(path, f"is damaged or truncated: {complaints.texts[0]}")
    colours = series.axes.find("S")
    if colours < 0:
        return values, 1
    values = np.moveaxis(values, colours, -1)  # colours may be stored as one plane each
    return values, values.shape[-1]


class _Complaints(logging.Handler):
    """Collects the errors of a file that tifffile logs instead of raising them."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())

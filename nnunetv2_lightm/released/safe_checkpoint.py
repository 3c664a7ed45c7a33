"""Loading a checkpoint of unknown origin: nothing in it can run code, and what is in the way is named."""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

# nnU-Net logs numpy scalars. A dtype is of a class of its own, and each of them has to be allowed.
NUMPY_SCALARS = (
    *(np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64),
    *(np.float16, np.float32, np.float64),
)
_SCALAR = np.float64(0).__reduce__()[0]
ALLOWED = [
    *((_SCALAR, f"{module}.multiarray.scalar") for module in ("numpy.core", "numpy._core")),  # numpy 1, numpy 2
    np.dtype,
    *{type(np.dtype(scalar)) for scalar in NUMPY_SCALARS},
]
# What an unpickler may raise on damaged data: the list of Python's documentation of pickle, and torch's own.
UNPICKLING_ERRORS = (
    *(pickle.UnpicklingError, AttributeError, EOFError, ImportError, IndexError, KeyError),
    *(RuntimeError, TypeError, UnicodeDecodeError, ValueError),
)


class CheckpointError(Exception):
    """A checkpoint cannot be used; the message names the file, what is the matter with it, and what is needed."""


def load_safely(path: Path) -> object:
    """Load a file of ``torch.save`` onto the CPU: tensors, plain Python objects and numpy scalars, nothing else.

    Raises:
        CheckpointError: if it is no such file, is cut off or damaged, or holds anything else.
    """
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "no such file"
        raise CheckpointError(f"{path}: {found}; give a checkpoint file, e.g. fold_0/checkpoint_final.pth")
    _check_archive(path)
    try:
        with safe_globals(ALLOWED):
            refused = sorted(get_unsafe_globals_in_checkpoint(str(path)))
            if not refused:
                return torch.load(path, map_location="cpu", weights_only=True)
    except UNPICKLING_ERRORS as error:
        raise CheckpointError(f"{path}: cannot be loaded as a checkpoint: {_reason(error)}") from error
    raise CheckpointError(
        f"{path}: refers to {', '.join(refused)}, and loading that could run code that the file brings along; "
        "expected tensors, plain Python objects and numpy scalars alone"
    )


def _check_archive(path: Path) -> None:
    """torch.save writes a zip archive with checksums, which torch.load does not look at."""
    if not zipfile.is_zipfile(path):
        size = path.stat().st_size
        raise CheckpointError(
            f"{path}: {size} bytes that are no checkpoint, or not all of one; expected a file of torch.save (zip)"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise CheckpointError(f"{path}: is damaged: {error}; copy or download it again") from error
    if damaged is not None:
        raise CheckpointError(f"{path}: is damaged: the checksum of {damaged} is wrong; copy or download it again")


def _reason(error: BaseException) -> str:
    """torch's advice to load the file unsafely is left out."""
    inner = re.search(r"WeightsUnpickler error: ([^\n]+)", str(error))
    text = inner[1] if inner else str(error).partition("\n")[0]
    return f"{type(error).__name__}: {text}"

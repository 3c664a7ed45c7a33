"""Loading a checkpoint of unknown origin: nothing in it can run code, or take more memory than the file has bytes."""

from __future__ import annotations

import pickle
import pickletools
import re
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

# nnU-Net logs numpy scalars. A dtype is of a class of its own, and each of them has to be allowed.
NUMPY_SCALARS = (
    np.bool_,
    np.int8,
    np.int16,
    np.int32,
    np.int64,
    np.uint8,
    np.uint16,
    np.uint32,
    np.uint64,
    np.float16,
    np.float32,
    np.float64,
)
_SCALAR = np.float64(0).__reduce__()[0]
ALLOWED = [
    *((_SCALAR, f"{module}.multiarray.scalar") for module in ("numpy.core", "numpy._core")),  # numpy 1, numpy 2
    np.dtype,
    *{type(np.dtype(scalar)) for scalar in NUMPY_SCALARS},
]
# What an unpickler may raise on damaged data: as Python's documentation of pickle lists it, and torch's own errors.
UNPICKLING_ERRORS = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    ImportError,
    IndexError,
    KeyError,
    RuntimeError,
    TypeError,
    UnicodeDecodeError,
    ValueError,
)
# torch allows more, but those can allocate memory from a number alone, like bytearray(10**9) and Tensor(10**9).
BOUNDED = re.compile(
    r"torch\.(cuda\.)?\w+Storage|torch\.(device|Size|[a-z]+\d+\w*|bool)|torch\.serialization\._get_layout"
    r"|torch\._utils\._rebuild_(tensor|tensor_v2|parameter|sparse_tensor|meta_tensor_no_storage)"
    r"|collections\.OrderedDict|_codecs\.encode|numpy(\.\w+)*\.(scalar|dtype|\w+DType)"
)
# What every checkpoint of nnU-Net has, and of which type.
CHECKPOINT_KEYS = {"network_weights": dict, "trainer_name": str, "init_args": dict}
MAX_PICKLE_BYTES, MAX_ENTRIES = 8 * 2**20, 10_000
MAX_CONTENT = 8 * 2**20  # of plans and the like, which JSON writes out wherever a pickle refers to them again


class CheckpointError(Exception):
    """A checkpoint cannot be used; the message names the file, what is wrong with it, and what is needed."""


def load_safely(path: Path) -> object:
    """Load a file of ``torch.save`` onto the CPU: tensors, plain Python objects and numpy scalars, nothing else.

    The tensors are mapped from the file: the sizes that their storages claim allocate nothing.

    Raises:
        CheckpointError: if it is not such a file, is truncated or damaged, or holds anything else.
    """
    if not path.is_file():
        state = "is a folder" if path.is_dir() else "no such file"
        raise CheckpointError(f"{path}: {state}; give a checkpoint file, e.g. fold_0/checkpoint_final.pth")
    _check_archive(path)
    try:
        with safe_globals(ALLOWED):
            refused = sorted(get_unsafe_globals_in_checkpoint(str(path)))
            unbounded = [] if refused else sorted(name for name in _globals(path) if not BOUNDED.fullmatch(name))
            if not (refused or unbounded):
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except UNPICKLING_ERRORS as error:
        raise CheckpointError(f"{path}: cannot be loaded as a checkpoint: {_reason(error)}") from error
    if unbounded:
        raise CheckpointError(
            f"{path}: refers to {', '.join(unbounded)}, which no checkpoint of nnU-Net does, and which could take any "
            "amount of memory"
        )
    raise CheckpointError(
        f"{path}: refers to {', '.join(refused)}, and loading that could run code that the file brings along; "
        "expected tensors, plain Python objects and numpy scalars alone"
    )


def _check_archive(path: Path) -> None:
    """torch.save writes a zip archive with checksums, which torch.load does not look at."""
    if not zipfile.is_zipfile(path):
        size = path.stat().st_size
        raise CheckpointError(
            f"{path}: {size} bytes that are not a checkpoint, or not all of one; expected a file of torch.save (zip)"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            _check_sizes(path, archive)
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise CheckpointError(f"{path}: is damaged: {error}; copy or download it again") from error
    if damaged is not None:
        raise CheckpointError(f"{path}: is damaged: the checksum of {damaged} is wrong; copy or download it again")


def _check_sizes(path: Path, archive: zipfile.ZipFile) -> None:
    """torch.save compresses nothing, and no part of its file counts twice: what is read is not more than the file."""
    # TorchScript's code is compressed; torch.load refuses such a file without reading it.
    entries = [entry for entry in archive.infolist() if "/code/" not in entry.filename.lower()]
    if len(entries) > MAX_ENTRIES:
        raise CheckpointError(f"{path}: has {len(entries):,} parts; a checkpoint has at most {MAX_ENTRIES:,}")
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise CheckpointError(
                f"{path}: {entry.filename} is compressed, from {entry.file_size:,} bytes to {entry.compress_size:,}; "
                "torch.save compresses nothing: load and save it with torch, if you trust it"
            )
        if _is_pickle(entry.filename) and entry.file_size > MAX_PICKLE_BYTES:
            raise CheckpointError(
                f"{path}: {entry.filename} has {entry.file_size:,} bytes in addition to the tensors; expected at most "
                f"{MAX_PICKLE_BYTES:,}"
            )
    total, size = sum(entry.file_size for entry in entries), path.stat().st_size
    if total > size:
        raise CheckpointError(f"{path}: its parts have {total:,} bytes, the file {size:,}; they lie over each other")
    # torch's reader finds an entry under any spelling; what is checked here must be what it finds.
    if len({entry.filename.lower() for entry in archive.infolist()}) < len(archive.infolist()):
        raise CheckpointError(f"{path}: is damaged: two of its parts have one name; copy or download it again")


def _is_pickle(entry: str) -> bool:
    return entry.lower().endswith(".pkl")


def _globals(path: Path) -> set[str]:
    """Dotted names that the pickles of a checked archive refer to; torch loads no other form than GLOBAL."""
    with zipfile.ZipFile(path) as archive:
        pickles = [archive.read(name) for name in archive.namelist() if _is_pickle(name)]
    codes = [code for content in pickles for code in pickletools.genops(content)]
    return {argument.replace(" ", ".") for code, argument, _ in codes if code.name == "GLOBAL"}


def check_extent(path: Path, name: str, content: object) -> None:
    """Refuse plans and the like that are small in a pickle, where parts are shared, and huge as JSON.

    Raises:
        CheckpointError: if written out they have more than ``MAX_CONTENT`` entries and characters.
    """
    extent, left = 0, [content]
    while left:
        value = left.pop()
        extent += 1 + (len(value) if isinstance(value, (str, bytes)) else 0)
        if extent + len(left) > MAX_CONTENT:
            raise CheckpointError(
                f"{path}: {name} has more than {MAX_CONTENT:,} entries and characters when written out"
            )
        if isinstance(value, dict):
            left += [*value.keys(), *value.values()]
        elif isinstance(value, (list, tuple, set)):
            left += value


def _reason(error: BaseException) -> str:
    """torch's advice to load the file unsafely is left out."""
    inner = re.search(r"WeightsUnpickler error: ([^\n]+)", str(error))
    text = inner[1] if inner else str(error).partition("\n")[0]
    return f"{type(error).__name__}: {text}"

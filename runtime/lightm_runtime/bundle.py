"""A model in one file: safetensors with the pipeline in its metadata; docs/bundle.md of nnunetv2-lightm says how."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = "lightm"
VERSION = 1
MOST_HEADER_BYTES = 100_000_000  # as the safetensors library limits it
DTYPES = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4")}
# What a reader of version 1 needs of a pipeline.
SECTIONS = ("name", "network", "input", "preprocessing", "inference", "output", "source")


class BundleError(Exception):
    """A file is not a usable bundle; the message names it, what is wrong, and what is needed."""


@dataclass(frozen=True)
class Bundle:
    """A checked bundle.

    Attributes:
        path: The file.
        pipeline: What docs/bundle.md describes.
        tensors: All weights by name, ``fold_0/stem.pointwise.weight`` and so on, float32.
    """

    path: Path
    pipeline: dict[str, Any]
    tensors: dict[str, np.ndarray]

    @property
    def folds(self) -> list[str]:
        """Names of the folds, ``fold_0`` and so on."""
        return list(dict.fromkeys(name.partition("/")[0] for name in self.tensors))


def read_bundle(path: str | Path) -> Bundle:
    """Read and check a file: format, version, every offset, and the checksum of the weights.

    Raises:
        BundleError: if it is not a bundle, of an unknown version, cut off or damaged.
        OSError: if it cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise BundleError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}; expected a .lightm file")
    content = path.read_bytes()
    header, data = _header(path, content)
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise BundleError(f"{path}: is a safetensors file, but not a model that `nnUNetv2_lightm export` wrote")
    if metadata.get("version") != str(VERSION):
        raise BundleError(
            f"{path}: is of format version {metadata.get('version')}; this program reads version {VERSION}: "
            "update lightm-runtime, or export the model again"
        )
    if hashlib.sha256(data).hexdigest() != metadata.get("sha256"):
        raise BundleError(f"{path}: is damaged: the checksum of its weights is wrong; copy or download it again")
    tensors = {name: _tensor(path, name, entry, data) for name, entry in header.items()}
    return Bundle(path, _pipeline(path, metadata), tensors)


def _header(path: Path, content: bytes) -> tuple[dict[str, Any], memoryview]:
    if len(content) < 8:
        raise BundleError(f"{path}: {len(content)} bytes are no model")
    (length,) = struct.unpack("<Q", content[:8])
    if length > min(len(content) - 8, MOST_HEADER_BYTES):
        raise BundleError(f"{path}: is not a model, or not all of one: it has {len(content)} bytes")
    try:
        header = json.loads(content[8 : 8 + length].decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise BundleError(f"{path}: is not a model: it does not begin as a safetensors file does")
    return header, memoryview(content)[8 + length :]


def _tensor(path: Path, name: str, entry: object, data: memoryview) -> np.ndarray:
    fault = BundleError(f"{path}: is damaged: its entry of the tensor {name} does not fit the file")
    if not isinstance(entry, dict) or entry.get("dtype") not in DTYPES:
        raise fault
    dtype, shape, offsets = DTYPES[entry["dtype"]], entry.get("shape"), entry.get("data_offsets")
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(type(n) is int and n >= 0 for n in numbers):
            raise fault
    if len(offsets) != 2 or not offsets[0] <= offsets[1] <= len(data):
        raise fault
    count = 1
    for size in shape:
        count *= size
    if count * dtype.itemsize != offsets[1] - offsets[0]:
        raise fault
    values = np.frombuffer(data[offsets[0] : offsets[1]], dtype).astype(np.float32).reshape(shape)
    if not np.isfinite(values).all():
        raise BundleError(f"{path}: the tensor {name} has NaN or infinite weights")
    return values


def _pipeline(path: Path, metadata: dict[str, Any]) -> dict[str, Any]:
    try:
        pipeline = json.loads(metadata.get("pipeline", ""))
    except (json.JSONDecodeError, TypeError, RecursionError):
        pipeline = None
    missing = [key for key in SECTIONS if not isinstance(pipeline, dict) or key not in pipeline]
    if missing:
        raise BundleError(f"{path}: is damaged: its pipeline lacks {', '.join(missing)}")
    return pipeline

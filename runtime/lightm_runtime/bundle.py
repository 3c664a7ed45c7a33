"""A model in one file: safetensors with the pipeline in its metadata; docs/bundle.md of nnunetv2-lightm says how."""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .pipeline import PipelineError, check_pipeline

FORMAT = "lightm"
VERSION = 2
MOST_HEADER_BYTES = 100_000_000  # as the safetensors library limits it
MOST_RANK, MOST_SIZE = 8, 2**40  # of a tensor's axes, far above those of any weight and what numpy takes
DTYPES = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4")}
CHECKSUM_DIGITS = 64


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
    """Read and check a file: format, version, the checksum of all of it, every offset, and the pipeline.

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
    _check_version(path, metadata.get("version"))
    if not _is_whole(content, len(content) - len(data), metadata.get("sha256")):
        raise BundleError(f"{path}: is damaged: its checksum is wrong; copy or download it again")
    pipeline = _pipeline(path, metadata)
    if not header:
        raise BundleError(f"{path}: has no weights; export the model again")
    _check_places(path, header, len(data))
    tensors = {name: _tensor(path, name, entry, data) for name, entry in header.items()}
    return Bundle(path, pipeline, tensors)


def _check_version(path: Path, version: object) -> None:
    if version == str(VERSION):
        return
    # An older version said less of the model than this one needs, so that no program can read it instead.
    later = isinstance(version, str) and re.fullmatch("[0-9]{1,9}", version) and int(version) > VERSION
    fix = "update lightm-runtime" if later else "export the model again"
    raise BundleError(f"{path}: is of format version {version!s:.60}; this program reads version {VERSION}: {fix}")


def _is_whole(content: bytes, begin: int, checksum: object) -> bool:
    """The checksum is of the whole file with its own digits, which are in the header, taken for 0."""
    if not isinstance(checksum, str) or len(checksum) != CHECKSUM_DIGITS or not checksum.isascii():
        return False
    at = content.find(checksum.encode(), 0, begin)
    if at < 0:
        return False
    digest = hashlib.sha256(content[:at])
    digest.update(b"0" * CHECKSUM_DIGITS)
    digest.update(memoryview(content)[at + CHECKSUM_DIGITS :])
    return digest.hexdigest() == checksum


def _header(path: Path, content: bytes) -> tuple[dict[str, Any], memoryview]:
    if len(content) < 8:
        raise BundleError(f"{path}: {len(content)} bytes are no model")
    (length,) = struct.unpack("<Q", content[:8])
    if length > min(len(content) - 8, MOST_HEADER_BYTES):
        raise BundleError(f"{path}: is not a model, or not all of one: it has {len(content)} bytes")
    try:
        header = json.loads(content[8 : 8 + length].decode("utf-8"))
    except (ValueError, RecursionError):  # ValueError: no UTF-8, no JSON, or a number of thousands of digits
        header = None
    if not isinstance(header, dict):
        raise BundleError(f"{path}: is not a model: it does not begin as a safetensors file does")
    return header, memoryview(content)[8 + length :]


def _check_places(path: Path, header: dict[str, Any], size: int) -> None:
    """Tensors lie next to each other and fill the file, as safetensors has it: none shares bytes with another."""
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: _offsets(path, *item)):
        first, last = _offsets(path, name, entry)
        if first != end:
            what = "overlaps another one" if first < end else "does not follow the one before it"
            raise BundleError(f"{path}: is damaged: the tensor {name} {what}; export the model again")
        end = last
    if end != size:
        raise BundleError(f"{path}: is damaged: its tensors end {abs(size - end)} bytes from its end")


def _offsets(path: Path, name: str, entry: object) -> list[int]:
    """Where a tensor begins and ends; its shape is checked with it."""
    fault = BundleError(f"{path}: is damaged: its entry of the tensor {name} does not fit the file")
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str) or entry["dtype"] not in DTYPES:
        raise fault
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(type(n) is int and n >= 0 for n in numbers):
            raise fault
    # Without a number the other sizes could be any: the product is 0, and numpy cannot make such a shape.
    if len(shape) > MOST_RANK or max(shape, default=0) > MOST_SIZE:
        raise fault
    if len(offsets) != 2 or math.prod(shape) * DTYPES[entry["dtype"]].itemsize != offsets[1] - offsets[0]:
        raise fault
    return offsets


def _tensor(path: Path, name: str, entry: dict[str, Any], data: memoryview) -> np.ndarray:
    dtype, shape, offsets = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    values = np.frombuffer(data[offsets[0] : offsets[1]], dtype).astype(np.float32).reshape(shape)
    if not np.isfinite(values).all():
        raise BundleError(f"{path}: the tensor {name} has NaN or infinite weights")
    return values


def _pipeline(path: Path, metadata: dict[str, Any]) -> dict[str, Any]:
    try:
        pipeline = json.loads(metadata.get("pipeline", ""))
        json.dumps(pipeline, indent=2)  # what is nested too deep to be printed goes into no message either
    except (TypeError, ValueError, RecursionError) as error:
        raise BundleError(f"{path}: its pipeline is not valid JSON ({error}); export the model again") from error
    try:
        check_pipeline(pipeline)
    except PipelineError as error:
        raise BundleError(f"{path}: {error}; update lightm-runtime, or export the model again") from error
    return pipeline

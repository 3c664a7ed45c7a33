"""The bundle: safetensors with the pipeline in its metadata; docs/bundle.md has the format, lightm-runtime reads it."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..files import whole_file
from .bundle_pipeline import check_description
from .check import Comparison
from .errors import ExportError
from .model_folder import TrainedModel
from .network import describe_network
from .pipeline import VERSION, describe_pipeline
from .stored import stored_weights

NO_CHECKSUM = b"0" * 64  # in the place of the checksum's digits where it is computed


def write_bundle(model: TrainedModel, out: Path, *, half: bool = True, check_images: Path | None = None) -> Comparison:
    """Write one file with all folds of a model; it appears whole or not at all, and replaces one of the same name.

    Args:
        model: A model of any trainer whose network is LightMUNet.
        out: The file, ``*.lightm``.
        half: Store matrices in float16.
        check_images: Images to compare both precisions on; None: preprocessed cases of the model's data set.

    Returns: The effect of storing the weights, for the fold where it is largest.

    Raises:
        ExportError: if the engine cannot run the model, or float16 changes the labels of more than one voxel in 1000.
    """
    content, worst = bundle_content(model, half=half, check_images=check_images)
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as partial:
        partial.write_bytes(content)
    return worst


def bundle_content(
    model: TrainedModel, *, half: bool = True, check_images: Path | None = None
) -> tuple[bytes, Comparison]:
    """The content of a model's bundle; arguments and errors as in :func:`write_bundle`."""
    pipeline = {**describe_pipeline(model), "network": describe_network(model.network)}
    stored, worst = stored_weights(model, half=half, check_images=check_images)
    tensors = {f"{fold}/{name}": tensor for fold, weights in stored.items() for name, tensor in weights.items()}
    pipeline["check"] = {"weights": "float16" if half else "float32", **asdict(worst)}
    return serialised(tensors, pipeline), worst


def pipeline_of(content: bytes) -> dict:
    """The pipeline of a sound bundle."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["pipeline"])


def read_bundle(path: Path) -> bytes:
    """The content of a bundle that was written before.

    Raises:
        ExportError: if it is not a bundle, of another version, cut off or damaged, or does not describe a model.
    """
    content = path.read_bytes()
    try:
        with safe_open(path, "pt") as file:  # checks every offset
            metadata = file.metadata() or {}
            dtypes = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 no mapping
    except SafetensorError as error:
        raise ExportError(f"{path}: is not a bundle, or is truncated or damaged: {error}") from error
    if metadata.get("format") != "lightm":
        raise ExportError(f"{path}: is a safetensors file, but not a model that `nnUNetv2_lightm export` wrote")
    if metadata.get("version") != str(VERSION):
        raise ExportError(
            f"{path}: is of format version {metadata.get('version')}; this program reads version {VERSION}: export the "
            "model again"
        )
    checksum = str(metadata.get("sha256")).encode()
    if len(checksum) != len(NO_CHECKSUM) or _checksum(content.replace(checksum, NO_CHECKSUM, 1)) != checksum:
        raise ExportError(f"{path}: is damaged: its checksum is wrong; copy it again")
    check_description(path, metadata, dtypes)
    return content


def is_bundle(content: bytes) -> bool:
    """Whether a file begins as a bundle does."""
    return content[8:].startswith(b'{"__metadata__":{') and b'"format":"lightm"' in content[: 1 << 20]


def serialised(tensors: dict[str, Tensor], pipeline: dict) -> bytes:
    """The content of a bundle."""
    text = json.dumps(pipeline, allow_nan=False)
    metadata = {"format": "lightm", "version": str(VERSION), "pipeline": text, "sha256": NO_CHECKSUM.decode()}
    content = save(tensors, metadata)
    # Of the header too, a bit of which changes labels as well as one of the weights: its own digits are taken for 0.
    # The quotation marks of the pipeline, which is a text in the header, are escaped.
    field = b'"sha256":"%s"'
    if content.count(field % NO_CHECKSUM) != 1:
        raise ValueError("safetensors writes its header otherwise than this version of nnunetv2-lightm knows")
    return content.replace(field % NO_CHECKSUM, field % _checksum(content))


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()

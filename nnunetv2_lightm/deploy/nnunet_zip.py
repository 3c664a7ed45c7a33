"""A zip for ``nnUNetv2_install_pretrained_model_from_zip``: a model folder without what only a training needs.

nnU-Net's own ``nnUNetv2_export_model_to_zip`` packs the checkpoint as it is, with the optimiser's state: some six times
as much. A slim checkpoint holds what prediction and ``-pretrained_weights`` read, plain objects and tensors, matrices
in float16; PyTorch turns them into float32 where it loads them into a network.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from ..files import whole_file
from .check import Comparison
from .errors import ExportError
from .model_folder import TrainedModel
from .stored import stored_weights

CHECKPOINT = "checkpoint_final.pth"  # what nnUNetv2_predict looks for
COMMENT = b"nnUNetv2_lightm export --zip"  # at the end of the file, by which an export is recognised
DATE = (1980, 1, 1, 0, 0, 0)  # the first that a zip can have: the same model makes the same file
FINGERPRINT = "dataset_fingerprint.json"


def write_zip(model: TrainedModel, out: Path, *, half: bool = True, check_images: Path | None = None) -> Comparison:
    """Write all folds of a model; the file appears whole or not at all, and replaces one of the same name.

    Args:
        model: A model of any trainer.
        out: The file, ``*.zip``.
        half: Store matrices and kernels in float16.
        check_images: Images to compare both precisions on; None: preprocessed cases of the model's data set.

    Returns: The effect of storing the weights, for the fold where it is largest.

    Raises:
        ExportError: if a name in the plans is none of nnU-Net's, a weight is not finite, or float16 changes the labels
            of more than one voxel in 1000.
    """
    installed_folder(model)  # may refuse, before the work
    stored, worst = stored_weights(model, half=half, check_images=check_images)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_entries(out, zip_entries(model, stored))
    return worst


def installed_folder(model: TrainedModel) -> PurePosixPath:
    """Where nnU-Net installs the model, below nnUNet_results: the folder that its commands look for.

    Raises:
        ExportError: if a name in the plans is none that nnU-Net gives a folder.
    """
    folder = f"{model.trainer}__{model.plans.plans_name}__{model.configuration}"
    if not re.fullmatch(r"Dataset\d{3}_[\w.-]+", model.plans.dataset_name) or not re.fullmatch(r"[\w.-]+", folder):
        raise ExportError(
            f"{model.folder / 'plans.json'}: the model would be installed as {model.plans.dataset_name}/{folder}; "
            "nnU-Net's names are DatasetXXX_Name and letters, digits, `_`, `-` and `.`"
        )
    return PurePosixPath(model.plans.dataset_name, folder)


def zip_entries(model: TrainedModel, stored: Mapping[str, dict[str, Tensor]]) -> dict[str, bytes]:
    """The files of the zip, by name; the folds' weights come from ``stored``."""
    folder = installed_folder(model)
    entries = {
        f"{folder}/dataset.json": _json(model.dataset_json),
        f"{folder}/plans.json": _json(model.plans.plans),
    }
    if (model.folder / FINGERPRINT).is_file():
        entries[f"{folder}/{FINGERPRINT}"] = (model.folder / FINGERPRINT).read_bytes()
    for fold, weights in stored.items():
        entries[f"{folder}/{fold}/{CHECKPOINT}"] = _checkpoint(model, fold, weights)
    return entries


def write_entries(out: Path, entries: Mapping[str, bytes]) -> None:
    """Write a zip, whole or not at all."""
    with whole_file(out) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = COMMENT
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name, DATE), content, zipfile.ZIP_DEFLATED)


def read_entries(path: Path) -> dict[str, bytes]:
    """The files of a zip that ``export --zip`` wrote, by name.

    Raises:
        ExportError: if it is another file, or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.comment != COMMENT:
                raise ExportError(f"{path}: is a zip, but not one that `nnUNetv2_lightm export --zip` wrote")
            return {name: archive.read(name) for name in archive.namelist()}
    except zipfile.BadZipFile as error:
        raise ExportError(f"{path}: is no zip, or is truncated or damaged: {error}") from error


def is_model_zip(content: bytes) -> bool:
    """Whether a file ends as ``export --zip`` ends it."""
    return content.startswith(b"PK") and content.endswith(COMMENT)


def checkpoint_hashes(entries: Mapping[str, bytes]) -> dict[str, str]:
    """SHA-256 of each checkpoint, by its name in the zip."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in entries.items() if name.endswith(CHECKPOINT)}


def _checkpoint(model: TrainedModel, fold: str, weights: dict[str, Tensor]) -> bytes:
    number = fold.removeprefix("fold_")
    content = {
        "network_weights": weights,
        "trainer_name": model.trainer,
        "init_args": {
            "plans": model.plans.plans,
            "configuration": model.configuration,
            "fold": int(number) if number.isdigit() else number,
            "dataset_json": model.dataset_json,
        },
        "inference_allowed_mirroring_axes": model.mirroring_axes or None,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _json(content: dict) -> bytes:
    return (json.dumps(content, indent=4) + "\n").encode()

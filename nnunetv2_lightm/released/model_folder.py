"""Turns checkpoints of the authors' fork into a model folder of stock nnU-Net."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from ..checkpoints.safe_loading import CheckpointError
from ..files import (
    FolderTransaction,
    LockHeldError,
    NotOursError,
    Record,
    check_replaceable,
    keep_apart,
    work_folder,
    write_text,
)
from .checkpoint import ReleasedCheckpoint, read_released_checkpoint


def import_released(sources: Sequence[Path], out: Path, *, overwrite: bool = False) -> list[ReleasedCheckpoint]:
    """Write a model folder that ``nnUNetv2_predict_from_modelfolder`` takes. It appears whole or not at all.

    Args:
        sources: Checkpoints of one training, each of another fold.
        out: The model folder: plans.json, dataset.json, fold_X/checkpoint_final.pth.
        overwrite: Replace a model folder that was imported before.

    Returns: The imported checkpoints.

    Raises:
        CheckpointError: if ``out`` already exists, or holds files that no import made; if a source is not a checkpoint
            of the fork, or two do not belong together.
    """
    out = Path(os.path.realpath(out))
    try:
        keep_apart(sources, [out, work_folder(out)])
        check_replaceable(out, overwrite)
        checkpoints = [read_released_checkpoint(path) for path in sources]
        _check_together(checkpoints)
        with FolderTransaction([out], check=lambda: check_replaceable(out, overwrite), warn=print) as transaction:
            _write(checkpoints, transaction.new[0])
            transaction.commit()
    except LockHeldError as error:
        raise CheckpointError(f"{out}: another import is at work there: {error}") from error
    except NotOursError as error:
        raise CheckpointError(str(error)) from error
    return checkpoints


def _check_together(checkpoints: Sequence[ReleasedCheckpoint]) -> None:
    """A model folder has one plans file, one data set and one trainer, and a fold once."""
    first, *others = checkpoints
    by_fold = {first.fold: first}
    for other in others:
        for what in ("trainer", "configuration", "plans", "dataset_json"):
            if _comparable(getattr(first, what)) != _comparable(getattr(other, what)):
                raise CheckpointError(
                    f"{first.source} and {other.source}: differ in {what}, so they are not folds of one training; "
                    "import them into folders of their own"
                )
        if other.fold in by_fold:
            raise CheckpointError(f"{by_fold[other.fold].source} and {other.source}: both are of fold {other.fold}")
        by_fold[other.fold] = other


def _comparable(value: object) -> object:
    """Text for mappings, because NaN is not equal to itself."""
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else value


def _write(checkpoints: Sequence[ReleasedCheckpoint], folder: Path) -> None:
    for name, content in (("plans.json", checkpoints[0].plans), ("dataset.json", checkpoints[0].dataset_json)):
        write_text(folder / name, json.dumps(content, indent=4) + "\n")
    for checkpoint in checkpoints:
        fold_folder = folder / f"fold_{checkpoint.fold}"
        fold_folder.mkdir()
        _save(checkpoint.to_save(), fold_folder / "checkpoint_final.pth")
    record = Record(folder)
    record.add(folder)
    record.write("nnUNetv2_lightm import-released")


def _save(checkpoint: dict, file: Path) -> None:
    """`torch.save`, whose error on a full disk names no file."""
    try:
        torch.save(checkpoint, file)
    except RuntimeError as error:
        free_mib = shutil.disk_usage(file.parent).free / 2**20
        raise CheckpointError(f"cannot write {file} ({free_mib:.0f} MiB are free there): {error}") from error

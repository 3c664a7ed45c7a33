"""Checkpoints of the authors' fork become a model folder of stock nnU-Net."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from .checkpoint import ReleasedCheckpoint, read_released_checkpoint
from .safe_checkpoint import CheckpointError


def import_released(sources: Sequence[Path], out: Path, *, overwrite: bool = False) -> list[ReleasedCheckpoint]:
    """Write a model folder that ``nnUNetv2_predict_from_modelfolder`` takes. It appears whole or not at all.

    Args:
        sources: Checkpoints of one training, each of another fold.
        out: The model folder: plans.json, dataset.json, fold_X/checkpoint_final.pth.
        overwrite: Replace a model folder that is there.

    Returns: What was imported.

    Raises:
        CheckpointError: if ``out`` is there already, a source is not a checkpoint of the fork, or two do not belong
            together.
    """
    out = out.resolve()
    _check_free(out, overwrite)
    checkpoints = [read_released_checkpoint(path) for path in sources]
    _check_together(checkpoints)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as work:
        new, old = Path(work, "new"), Path(work, "old")
        _write(checkpoints, new)
        _check_free(out, overwrite)
        try:
            if out.exists():
                out.rename(old)
            new.rename(out)
        finally:
            if old.exists() and not out.exists():
                old.rename(out)
    return checkpoints


def _check_free(out: Path, overwrite: bool) -> None:
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise CheckpointError(f"{out}: is there already; give another folder, or --overwrite to replace it")
    if not out.is_dir() or (any(out.iterdir()) and not _is_model_folder(out)):
        raise CheckpointError(f"{out}: is not a model folder (plans.json, dataset.json, fold_X) and is not replaced")


def _is_model_folder(folder: Path) -> bool:
    files = all((folder / name).is_file() for name in ("plans.json", "dataset.json"))
    return files and any(folder.glob("fold_*"))


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
    """As text, because a NaN is not equal to itself."""
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else value


def _write(checkpoints: Sequence[ReleasedCheckpoint], folder: Path) -> None:
    folder.mkdir()
    for name, content in (("plans.json", checkpoints[0].plans), ("dataset.json", checkpoints[0].dataset_json)):
        (folder / name).write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
    for checkpoint in checkpoints:
        fold_folder = folder / f"fold_{checkpoint.fold}"
        fold_folder.mkdir()
        torch.save(checkpoint.to_save(), fold_folder / "checkpoint_final.pth")

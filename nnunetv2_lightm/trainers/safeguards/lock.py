"""One training of a fold at a time: a lock in the fold's folder, released when the process that holds it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from ...files import FileLock, LockHeldError

LOCK_FILE = ".training.lock"


class FoldIsBeingTrainedError(RuntimeError):
    """Another process is training the fold; the message names it."""


def train_alone(trainer: nnUNetTrainer, run_training: Callable[[], None]) -> None:
    """Train while holding the fold's lock; in a DDP training the first process holds it for all.

    Raises: FoldIsBeingTrainedError: at once, if another process trains the fold.
    """
    if trainer.local_rank != 0:
        run_training()
        return
    with fold_lock(trainer.output_folder, trainer.print_to_log_file):
        run_training()


@contextmanager
def fold_lock(folder: str | Path, log: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a fold's folder.

    It belongs to this process alone, not to the augmentation workers that it forks, which may outlive it.

    Args:
        folder: The fold's folder, with the checkpoints.
        log: Called if the file system does not support locks; the training continues without one.

    Raises: FoldIsBeingTrainedError: at once, if another process holds it.
    """
    lock = FileLock(Path(folder, LOCK_FILE), inherited=False)
    try:
        lock.acquire(log)
    except LockHeldError as error:
        raise FoldIsBeingTrainedError(
            f"{folder} is being trained by {error.holder}: a second training would overwrite its checkpoints. Wait "
            f"for it or end it. Nothing was changed. The lock, {lock.path}, ends with that process"
        ) from error
    try:
        yield
    finally:
        lock.release()

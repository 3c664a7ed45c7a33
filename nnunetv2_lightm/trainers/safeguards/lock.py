"""One training of a fold at a time: a lock in its folder that ends with the process that holds it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from ...files import FileLock, LockHeldError

LOCK_FILE = ".training.lock"


class FoldIsBeingTrainedError(RuntimeError):
    """Another process trains the fold; the message names it."""


def train_alone(trainer: nnUNetTrainer, run_training: Callable[[], None]) -> None:
    """Train while no other process trains this fold; of a DDP training the first process sees to it.

    Raises: FoldIsBeingTrainedError: at once, if another one does.
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
        folder: Of the fold, where the checkpoints are.
        log: Told when the file system knows no locks; the training goes on then.

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

"""Atomic checkpoints: written whole or not at all, and checked before anything is loaded."""

from __future__ import annotations

from pathlib import Path

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from ..checkpoints.integrity import CHECKPOINTS, is_torn_checkpoint
from ..files import remove_partial, whole_file


class TornCheckpointError(RuntimeError):
    """A checkpoint is truncated or damaged and there is no other one to use; the message says what to do."""


class AtomicCheckpoints(nnUNetTrainer):
    """Base of our trainers: a run killed at any moment leaves a whole checkpoint, from which `--c` continues.

    nnU-Net overwrites the last checkpoint in place; a run killed while it writes is left with none.
    """

    def save_checkpoint(self, filename: str) -> None:
        """As in nnU-Net, but written under another name, which then replaces `filename` in one step."""
        if self.local_rank != 0 or self.disable_checkpointing:
            super().save_checkpoint(filename)  # nnU-Net writes nothing in this case
            return
        with whole_file(filename) as partial:
            super().save_checkpoint(str(partial))

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.local_rank == 0:
            for name in CHECKPOINTS:  # what a killed run left behind
                remove_partial(Path(self.output_folder, name))

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        """As in nnU-Net, but never from a torn file: `--c` then uses the next one in nnU-Net's own order.

        Raises:
            TornCheckpointError: if there is no other one, or if this very one was requested (`--val`).
        """
        if isinstance(filename_or_checkpoint, str):
            filename_or_checkpoint = self._whole_checkpoint(filename_or_checkpoint)
        super().load_checkpoint(filename_or_checkpoint)

    def _whole_checkpoint(self, filename: str) -> str:
        """The file itself, or with `--c` the next whole one."""
        wanted = Path(filename)
        if not wanted.exists() or not is_torn_checkpoint(wanted):
            return filename
        later = CHECKPOINTS[CHECKPOINTS.index(wanted.name) + 1 :] if wanted.name in CHECKPOINTS else ()
        whole = [path for path in map(wanted.with_name, later) if path.exists() and not is_torn_checkpoint(path)]
        torn = f"{wanted} is torn: it was cut off while being written, or damaged afterwards."
        if whole and self.logger.resume:
            self.print_to_log_file(f"WARNING: {torn} Continuing from {whole[0]}")
            return str(whole[0])
        advice = f"nnUNetv2_train with --c continues from {whole[0]}" if whole else "move it away and train without --c"
        raise TornCheckpointError(f"{torn} To fix this, {advice}.")

"""A disk that is full when a checkpoint is saved: the last one survives, the file is named, nothing else stays."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch

LATEST = "checkpoint_latest.pth"
# A checkpoint of this trainer has some 30 MB.
ROOM_BYTES = 1_000_000


@contextmanager
def no_file_longer_than_room():
    """The system cuts each file off there, as a full disk does."""
    resource = pytest.importorskip("resource", reason="Windows has no limit on the length of files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM_BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def trainer(dataset):
    trainer = dataset.trainer()
    trainer.initialize()
    return trainer


@pytest.fixture
def small_disk(dataset):
    """A disk in the place of nnUNet_results; skips where the user may not mount one."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM_BYTES}", "tmpfs", str(dataset.results)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small disk")
    yield dataset.results
    subprocess.run(["umount", str(dataset.results)], check=True)


def checkpoints(trainer) -> list[str]:
    """All files of the fold but nnU-Net's log."""
    files = Path(trainer.output_folder).iterdir()
    return sorted(path.name for path in files if not path.name.startswith("training_log"))


def test_the_last_checkpoint_survives_a_full_disk(dataset, trainer):
    file = Path(trainer.output_folder, LATEST)
    trainer.current_epoch = 3
    trainer.save_checkpoint(str(file))
    saved = file.read_bytes()
    trainer.current_epoch = 4
    with no_file_longer_than_room(), pytest.raises(OSError, match=f"cannot save {file} .*MiB are free there"):
        trainer.save_checkpoint(str(file))
    assert checkpoints(trainer) == [LATEST], "nothing half-written stays"
    assert file.read_bytes() == saved
    other = dataset.trainer()
    dataset.continued(other)
    assert other.current_epoch == 4


@pytest.mark.parametrize("disk", ["limit", "small disk"])
def test_the_first_checkpoint_on_a_full_disk_leaves_nothing(dataset, request, disk):
    if disk == "small disk":
        request.getfixturevalue("small_disk")
    trainer = request.getfixturevalue("trainer")
    full = no_file_longer_than_room() if disk == "limit" else nullcontext()
    with full, pytest.raises(OSError, match=f"cannot save .*{LATEST}.*Make room; --c continues"):
        trainer.save_checkpoint(str(Path(trainer.output_folder, LATEST)))
    assert checkpoints(trainer) == []


def test_a_folder_that_cannot_be_written_to_is_named(trainer, monkeypatch):
    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(torch, "save", refuse)
    with pytest.raises(OSError, match=f"cannot save .*{LATEST}.*Read-only file system"):
        trainer.save_checkpoint(str(Path(trainer.output_folder, LATEST)))


def test_without_checkpoints_nothing_is_written(trainer):
    """nnUNetv2_train --disable_checkpointing."""
    trainer.disable_checkpointing = True
    with no_file_longer_than_room():
        trainer.save_checkpoint(str(Path(trainer.output_folder, LATEST)))
    assert checkpoints(trainer) == []

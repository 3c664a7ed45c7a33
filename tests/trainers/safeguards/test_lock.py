"""Two trainings of one fold: the second one is refused by name, and a killed one locks nobody out."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nnunetv2_lightm.files import locks
from nnunetv2_lightm.trainers.safeguards import lock
from nnunetv2_lightm.trainers.safeguards.lock import FoldIsBeingTrainedError, fold_lock

# The forked process stands for an augmentation worker of nnU-Net, which outlives a training that is killed.
HOLD = """
import os, sys, time
from pathlib import Path
from nnunetv2_lightm.files import FileLock
lock = FileLock(Path(sys.argv[1], ".training.lock"), inherited=False)
lock.acquire(print)
worker = os.fork()
if worker == 0:
    time.sleep(60)
    os._exit(0)
print(worker, flush=True)
sys.stdin.readline()
"""

posix = pytest.mark.skipif(os.name == "nt", reason="forks")


@pytest.fixture
def another_training():
    """Start a process that holds the lock of a folder; returns it and the id of a process that it has forked."""
    started, workers = [], []

    def start(folder: Path) -> tuple[subprocess.Popen, int]:
        command = [sys.executable, "-c", HOLD, str(folder)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        workers.append(int(process.stdout.readline()))
        return process, workers[-1]

    yield start
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    for process in started:
        process.kill()
        process.communicate()


def contents(folder: Path) -> dict[Path, bytes]:
    """Everything but nnU-Net's log files, of which each trainer begins a new one."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("training_log"))
    return {path: path.read_bytes() for path in files}


@posix
def test_a_second_training_is_refused_before_it_overwrites_anything(dataset, another_training):
    trainer = dataset.trainer()
    process, _ = another_training(trainer.output_folder)
    Path(trainer.output_folder, "checkpoint_latest.pth").write_text("of the first training")
    before = contents(dataset.results)
    holder = f"process {process.pid} on {socket.gethostname()} since 20"
    with pytest.raises(FoldIsBeingTrainedError, match=holder) as error:
        trainer.run_training()
    assert trainer.output_folder in str(error.value)
    assert contents(dataset.results) == before


@posix
def test_another_fold_is_free(tmp_path, another_training):
    for fold in ("fold_0", "fold_1"):
        (tmp_path / fold).mkdir()
    another_training(tmp_path / "fold_0")
    with fold_lock(tmp_path / "fold_1", print):
        pass


@posix
def test_a_killed_training_locks_nobody_out(tmp_path, another_training):
    """Although a worker that it had forked still runs, and its name is still in the file."""
    process, worker = another_training(tmp_path)
    process.kill()
    process.wait()
    os.kill(worker, 0)
    assert f"process {process.pid} on" in (tmp_path / ".training.lock").read_text()
    with fold_lock(tmp_path, print):
        assert (tmp_path / ".training.lock").read_text().startswith(f"process {os.getpid()} on")


@posix
def test_the_lock_ends_with_the_training(tmp_path, another_training):
    """Also if that ends by an error, as in a notebook that lives on."""
    with pytest.raises(ZeroDivisionError), fold_lock(tmp_path, print):
        raise ZeroDivisionError
    another_training(tmp_path)
    with pytest.raises(FoldIsBeingTrainedError), fold_lock(tmp_path, print):
        pass


def test_the_trainer_holds_it_while_it_trains_and_not_in_validation(dataset, monkeypatch):
    trainer = dataset.trainer()
    file = Path(trainer.output_folder, lock.LOCK_FILE)
    held = []
    for name in ("on_train_start", "on_train_end", "on_epoch_start"):
        monkeypatch.setattr(trainer, name, lambda: held.append(file.read_text()))
    trainer.current_epoch = trainer.num_epochs
    trainer.run_training()
    assert len(held) == 2 and all(f"process {os.getpid()} on" in text for text in held)
    assert file.read_text() == ""


def test_only_the_first_process_of_a_ddp_training_locks(dataset, monkeypatch):
    trainer = dataset.trainer()
    trainer.local_rank, trainer.current_epoch = 1, trainer.num_epochs
    for name in ("on_train_start", "on_train_end"):
        monkeypatch.setattr(trainer, name, lambda: None)
    trainer.run_training()
    assert not Path(trainer.output_folder, ".training.lock").exists()


@posix
@pytest.mark.parametrize(
    "name", ["nnUNetTrainer_1epochs_1iters", "nnUNetTrainer_20epochs_seed0", "nnUNetTrainerAdam_2epochs"]
)
def test_stock_trainers_with_a_budget_have_it_too(dataset, another_training, name):
    """`benchmark` and all who use a budget start them by this package."""
    trainer = dataset.trainer(name)
    process, _ = another_training(trainer.output_folder)
    Path(trainer.output_folder, "checkpoint_latest.pth").write_text("of the first training")
    before = contents(dataset.results)
    with pytest.raises(FoldIsBeingTrainedError, match=f"process {process.pid} on"):
        trainer.run_training()
    assert contents(dataset.results) == before
    process.kill()
    process.wait()
    trainer.current_epoch = trainer.num_epochs
    held = []
    for method in ("on_train_start", "on_train_end"):
        setattr(trainer, method, lambda: held.append(Path(trainer.output_folder, lock.LOCK_FILE).read_text()))
    trainer.run_training()
    assert len(held) == 2 and all(f"process {os.getpid()} on" in text for text in held)


def test_a_file_system_without_locks_is_logged(tmp_path, monkeypatch):
    def refuse(stream):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks, "_lock_for_process", refuse)
    said = []
    with fold_lock(tmp_path, said.append):
        pass
    (message,) = said
    assert "the file system does not support locks (No locks available)" in message

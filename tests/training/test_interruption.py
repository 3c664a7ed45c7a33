"""`nnUNetv2_train` is interrupted or killed in a process of its own, and `--c` continues."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from nnunetv2_lightm.checkpoints.integrity import is_whole_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")]
CUBES = "Dataset601_Cubes"
LATEST, FINAL = "checkpoint_latest.pth", "checkpoint_final.pth"

# The trainings kill themselves, so that it happens at the very moment that is meant.
KILLED_IN_EPOCH_2 = """
import os, signal
from nnunetv2_lightm.trainers import nnUNetTrainerLightMUNet as Trainer
train_step = Trainer.train_step
def killed(self, batch):
    if self.current_epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return train_step(self, batch)
Trainer.train_step = killed
"""
KILLED_IN_SAVE_OF_EPOCH_2 = """
import io, os, signal, torch
save = torch.save
def killed(checkpoint, file):
    if checkpoint["current_epoch"] == 3:
        buffer = io.BytesIO()
        save(checkpoint, buffer)
        with open(file, "wb") as half:
            half.write(buffer.getvalue()[: buffer.tell() // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    save(checkpoint, file)
torch.save = killed
"""
COMMAND = "\nfrom nnunetv2.run.run_training import run_training_entry\nrun_training_entry()"


@pytest.fixture(scope="module")
def cubes(nnunet):
    nnunet.make_dataset(CUBES, "3d_fullres")
    return nnunet


def start(trainer, command, **options):
    arguments = [CUBES, "3d_fullres", "0", "-tr", trainer, "-device", "cpu"]
    return subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )


def processes_of_group(group):
    listed = subprocess.run(["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    fields = [line.split(None, 2) for line in listed.splitlines()]
    return [args for pgid, stat, args in fields if int(pgid) == group and stat[0] != "Z"]


def load(path):
    return torch.load(path, weights_only=False)


def continue_training(cubes, trainer):
    """Runs `--c` to the end; returns the log of what was done before and of what was done then."""
    fold = cubes.fold(CUBES, "3d_fullres", trainer=trainer)
    before = [path.read_text() for path in sorted(fold.glob("training_log*"))]
    cubes.train(CUBES, "3d_fullres", "--c", trainer=trainer)
    (log,) = [path.read_text() for path in sorted(fold.glob("training_log*"))[len(before) :]]
    assert sorted(path.name for path in fold.iterdir() if "checkpoint" in path.name) == ["checkpoint_best.pth", FINAL]
    assert (fold / "validation" / "summary.json").is_file()
    return before[0], log


def epochs(log):
    return [int(epoch) for epoch in re.findall(r": Epoch (\d+)", log)]


def test_continue_after_ctrl_c(cubes):
    """A terminal sends the signal to the command and its augmentation workers; all of them end."""
    trainer = "nnUNetTrainerLightMUNet_8epochs_1iters"
    fold = cubes.fold(CUBES, "3d_fullres", trainer=trainer)
    environment = {**os.environ, "nnUNet_n_proc_DA": "1"}
    command = [str(Path(sys.executable).with_name("nnUNetv2_train"))]
    process = start(trainer, command, env=environment, start_new_session=True)
    while process.poll() is None and not (fold / LATEST).exists():
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0 and "KeyboardInterrupt" in output, output
    deadline = time.monotonic() + 10
    while left := processes_of_group(process.pid):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)

    saved = load(fold / LATEST)["current_epoch"]
    before, after = continue_training(cubes, trainer)
    finished = before.count("Epoch time:")
    assert finished - 1 <= saved <= finished, "at most the epoch that was running is lost"
    assert epochs(after) == list(range(saved, 8))
    assert len(load(fold / FINAL)["logging"]["train_losses"]) == 8


def test_continue_after_kill_in_an_epoch(cubes):
    trainer = "nnUNetTrainerLightMUNet_4epochs_2iters"
    fold = cubes.fold(CUBES, "3d_fullres", trainer=trainer)
    process = start(trainer, [sys.executable, "-c", KILLED_IN_EPOCH_2 + COMMAND])
    output, _ = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, output
    losses = load(fold / LATEST)["logging"]["train_losses"]
    assert len(losses) == 2

    before, after = continue_training(cubes, trainer)
    assert (epochs(before), epochs(after)) == ([0, 1, 2], [2, 3])
    continued = load(fold / FINAL)["logging"]["train_losses"]
    assert len(continued) == 4 and continued[:2] == losses


def test_continue_after_kill_in_the_middle_of_a_checkpoint(cubes):
    trainer = "nnUNetTrainerLightMUNet_4epochs_1iters"
    fold = cubes.fold(CUBES, "3d_fullres", trainer=trainer)
    process = start(trainer, [sys.executable, "-c", KILLED_IN_SAVE_OF_EPOCH_2 + COMMAND])
    output, _ = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, output
    (half_written,) = fold.glob(".partial-*")
    assert half_written.stat().st_size > 1_000_000
    assert is_whole_checkpoint(fold / LATEST) and load(fold / LATEST)["current_epoch"] == 2

    before, after = continue_training(cubes, trainer)
    assert (epochs(before), epochs(after)) == ([0, 1, 2], [2, 3])
    assert not half_written.exists()

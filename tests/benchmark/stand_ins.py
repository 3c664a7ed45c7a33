"""Stand-ins for the commands of a comparison, in this process: they leave the files that the real ones leave."""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from nnunetv2_lightm.cli import main as lightm
from nnunetv2_lightm.runs import pipeline
from nnunetv2_lightm.runs.process import CommandFailed

TURN = {"train_seconds": 2.0, "validation_seconds": 1.0, "epoch_seconds": 3.0}
EPOCH = """\
2026-01-02 03:04:05.000000: Epoch {number}
2026-01-02 03:04:05.000000: train_loss -0.5
2026-01-02 03:04:05.000000: val_loss -0.25
2026-01-02 03:04:05.000000: Pseudo dice [np.float32(0.75)]
2026-01-02 03:04:05.000000: Epoch time: 2.5 s
"""


class Commands:
    """In the place of :func:`nnunetv2_lightm.runs.process.run_logged`.

    Attributes:
        called: What ran, in order: the program, with the trainer and --c or --val where there is one.
        reported: Results that a report was written of, the folder and the title.
        on_tick: The running command's callback.
        predicted_size: Pixels of an edge of the squares that are predicted; the true ones have 8.
        before_training_ends: Called with the name of a trainer after its first checkpoint; may raise.
    """

    def __init__(self, root: Path, before_training_ends: Callable[[str], None] = lambda trainer: None) -> None:
        self.root = root
        self.called: list[str] = []
        self.reported: list[tuple] = []
        self.predicted_size = 6
        self.before_training_ends = before_training_ends

    def install(self, set_attribute: Callable[[object, str, object], None] = setattr) -> None:
        set_attribute(pipeline, "resolve_command", lambda command: list(command))
        set_attribute(pipeline, "run_logged", self)

    def __call__(self, command: Sequence[str], log_file: Path, *, on_tick: Callable[[str], None], **_: object) -> None:
        self.on_tick = on_tick
        program, *arguments = command
        stand_in = {
            "nnUNetv2_train": self.train,
            "nnUNetv2_predict": self.predict,
            "nnUNetv2_lightm": self.lightm,
            "python": self.calibrate,
        }[program]
        flags = [word for word in arguments if word in ("--c", "--val", "complexity", "evaluate")]
        trainers = values(arguments, "-tr") if "-tr" in arguments else []
        self.called.append(" ".join([program, *trainers, *flags]))
        with log_file.open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            print(f"log of {program}")
            stand_in(arguments)

    def train(self, arguments: list[str]) -> None:
        (trainer,) = values(arguments, "-tr")
        _, configuration, fold, *_ = arguments
        folder = self.fold(trainer, configuration, fold)
        folder.mkdir(parents=True, exist_ok=True)
        go_on = "--c" in arguments
        (folder / f"training_log_2026_1_2_03_04_{5 + go_on:02d}.txt").write_text(EPOCH.format(number=int(go_on)))
        if not go_on:
            save_checkpoint(folder / "checkpoint_latest.pth")
            self.before_training_ends(trainer)
        (folder / "checkpoint_latest.pth").unlink(missing_ok=True)
        complete_training(folder)

    def predict(self, arguments: list[str]) -> None:
        (images,), (output,) = values(arguments, "-i"), values(arguments, "-o")
        for image in Path(images).iterdir():
            save_square(Path(output) / image.name.replace("_0000", ""), self.predicted_size)
        Path(output, "dataset.json").write_text("{}")

    def lightm(self, arguments: list[str]) -> None:
        if arguments[0] != "complexity":
            if lightm(arguments):
                raise CommandFailed("evaluate has failed")
            return
        (output,) = values(arguments, "-o")
        Path(output).parent.mkdir(exist_ok=True)
        counted = {"true_parameters": 5, "true_macs_sample": 60, "true_scan_flops_sample": 8}
        measured = {"forward_seconds": 0.1, "forward_transient_mib": 2.0, "training_seconds": 0.3}
        Path(output).write_text(json.dumps({"trainers": [{**counted, **measured, "training_transient_mib": None}]}))

    def calibrate(self, arguments: list[str]) -> None:
        (output,) = values(arguments, "-o")
        found = {"iterations_per_epoch": 250, "validation_iterations_per_epoch": 50, "turns": [TURN]}
        before = json.loads(Path(output).read_text())["trainers"] if Path(output).exists() else {}
        trainers = {**dict.fromkeys(values(arguments, "-tr"), found), **before}
        Path(output).write_text(json.dumps({"device": "cpu", "machine": {"processor": "P"}, "trainers": trainers}))

    def report(self, results: Sequence[object], folder: Path, title: str) -> None:
        self.reported.append((results, folder, title))

    def fold(self, trainer: str, configuration: str = "2d", fold: object = 0) -> Path:
        (dataset,) = (path.name for path in (self.root / "nnUNet_preprocessed").iterdir())
        model = f"{trainer}__nnUNetPlans__{configuration}"
        return self.root / "nnUNet_results" / dataset / model / f"fold_{fold}"


def values(arguments: Sequence[str], option: str) -> list[str]:
    """What follows an option up to the next one."""
    rest = arguments[arguments.index(option) + 1 :]
    end = next((i for i, word in enumerate(rest) if word.startswith("-")), len(rest))
    return list(rest[:end])


def complete_training(fold: Path) -> None:
    """What tells that a training is complete."""
    save_checkpoint(fold / "checkpoint_final.pth")
    save_square(fold / "validation" / "c.png", 6)
    (fold / "validation" / "summary.json").write_text("{}")


def save_checkpoint(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("data.pkl", os.urandom(100))


def save_square(path: Path, size: int) -> None:
    """A label map with a square of so many pixels an edge."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((16, 16), np.uint8)
    pixels[:size, :size] = 1
    Image.fromarray(pixels).save(path)

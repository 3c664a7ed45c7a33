"""Seconds and transient memory of a trainer's forward pass and training step for one patch.

Each is measured in its own process with temporary nnU-Net folders: :mod:`.measure_trainer`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from shutil import copy

from ..measure.timing import Spread
from .plans import PlannedConfiguration

FORWARD, TRAINING = "forward", "training"


@dataclass(frozen=True)
class Measurement:
    """What one patch costs here.

    Attributes:
        seconds: Time of one run.
        transient_mib: Peak memory while it runs, on top of what network and optimizer hold.
        not_measured: Why one or both of them are None.
        setting: Device, threads and scan backend; None if nothing is measured.
    """

    seconds: Spread | None
    transient_mib: float | None
    not_measured: str | None
    setting: str | None


def measure(trainer: str, planned: PlannedConfiguration, work: str, device: str) -> Measurement:
    """Measure one patch, batch 1, of random numbers.

    Args:
        trainer: Its name.
        planned: The configuration.
        work: ``FORWARD``, as in prediction but without mirroring, or ``TRAINING``, the trainer's own ``train_step``
            with its loss, optimizer and deep supervision.
        device: "cpu" or "cuda".
    """
    request = {
        "trainer": trainer,
        "dataset": planned.dataset,
        "configuration": planned.name,
        "plans_identifier": planned.plans_file.stem,
        "work": work,
        "device": device,
    }
    with tempfile.TemporaryDirectory(prefix="nnunetv2_lightm_") as folder:
        environment = {**os.environ, **_folders(Path(folder), planned)}
        done = subprocess.run(
            [sys.executable, "-m", f"{__package__}.measure_trainer", json.dumps(request)],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
    if done.returncode:
        last_line = (done.stderr.strip() or "no message").splitlines()[-1]
        why = "the process was killed; is there enough memory?" if done.returncode == -9 else last_line
        return Measurement(None, None, why, None)
    content = json.loads(done.stdout.splitlines()[-1])
    return Measurement(**{**content, "seconds": Spread(**content["seconds"])})


def _folders(root: Path, planned: PlannedConfiguration) -> dict[str, str]:
    """nnU-Net's folders with only the plans, so that no results are touched and nothing need be preprocessed."""
    folders = {f"nnUNet_{name}": root / name for name in ("raw", "preprocessed", "results")}
    for folder in folders.values():
        folder.mkdir()
    dataset = folders["nnUNet_preprocessed"] / planned.dataset
    cases = dataset / planned.configuration.data_identifier
    cases.mkdir(parents=True)
    # A trainer looks at the endings of the preprocessed files when it is initialised, and opens none.
    (cases / "none.b2nd").touch()
    for file in (planned.plans_file, planned.plans_file.with_name("dataset.json")):
        copy(file, dataset)
    return {variable: str(folder) for variable, folder in folders.items()}

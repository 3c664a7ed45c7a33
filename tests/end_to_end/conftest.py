"""A place of its own for nnU-Net's commands, run as a user runs them: in subprocesses, nothing exported but folders."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# installing.py is imported by tests and by a script, for which its folder is where Python looks.
sys.path.insert(0, str(Path(__file__).resolve().parent))

FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


class Workspace:
    """nnU-Net's three folders and a way to run its commands there.

    Attributes:
        root: Holds the three folders, and is the working directory of the commands.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in FOLDERS:
            (root / name).mkdir()
        # The commands must find the trainers without it, and the outer process has it from our autoload.
        inherited = {k: v for k, v in os.environ.items() if k != "nnUNet_extTrainer"}
        # Each worker process of a prediction imports PyTorch, which takes as long as all else; a test of them asks for
        # some.
        workers = {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1", "nnUNet_npp": "0", "nnUNet_nps": "0"}
        self.environment = {**inherited, **workers, **{name: str(root / name) for name in FOLDERS}}

    def run(self, *command: str | Path) -> str:
        """Run an installed command; returns what it printed, fails the test if its exit code is not 0."""
        program = Path(sys.executable).parent / str(command[0])
        result = subprocess.run(
            [str(program), *map(str, command[1:])],
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert result.returncode == 0, f"{' '.join(map(str, command))}\n{result.stdout[-6000:]}"
        return result.stdout

    def raw(self, dataset: str) -> Path:
        return self.root / "nnUNet_raw" / dataset

    def model(self, dataset: str, trainer: str, configuration: str, plans: str = "nnUNetPlans") -> Path:
        return self.root / "nnUNet_results" / dataset / f"{trainer}__{plans}__{configuration}"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)

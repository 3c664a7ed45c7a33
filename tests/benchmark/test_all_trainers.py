"""The benchmark with nnU-Net's own commands: all trainers in this process, then one through the installed command."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from nnunetv2_lightm.autoload import shim_directory
from nnunetv2_lightm.autoload.boot import EXT_TRAINER_VARIABLE
from nnunetv2_lightm.benchmark import measure_costs
from nnunetv2_lightm.benchmark.results import load_results
from nnunetv2_lightm.commands.benchmark import main
from nnunetv2_lightm.complexity import trainer_report
from nnunetv2_lightm.complexity.measurement import Measurement
from nnunetv2_lightm.runs import pipeline
from nnunetv2_lightm.runs.process import CommandFailed
from nnunetv2_lightm.trainers import TRAINERS

from ..networks.small import SMALL
from ..nnunet_in_process import FOLDERS, nnunet_in_process

DATASET = "Dataset951_Boxes"
OTHERS = ("nnUNetTrainerNoMirroring", "nnUNetTrainerOfTheUser")  # one of nnU-Net's own, one in nnUNet_extTrainer
ALL = ("nnUNetTrainer", *TRAINERS, *OTHERS)
BUDGET = "1epochs_1iters"


@pytest.fixture(scope="module")
def compared(module_folder) -> Path:
    """All trainers compared, at the least budget, in this process; the folder that holds nnU-Net's folders."""
    root = module_folder
    with nnunet_in_process(root) as nnunet, pytest.MonkeyPatch.context() as patch:
        nnunet.max_patch_voxels = 32 * 32
        nnunet.make_dataset(DATASET, "2d", shape=(32, 32), spacing=(1, 1), file_ending=".png")
        raw = root / "nnUNet_raw" / DATASET
        for name in ("images", "labels"):
            shutil.copytree(raw / f"{name}Tr", raw / f"{name}Ts")
        patch.setattr(pipeline, "resolve_command", lambda command: list(command))
        patch.setattr(pipeline, "run_logged", run_in_process)
        patch.setattr(measure_costs, "ROUNDS", 1)
        patch.setattr(measure_costs, "TURN_SECONDS", 0)
        # Each would be measured in a process of its own; the test of the installed command below does so.
        none = Measurement(None, None, "not in this test", None)
        patch.setattr(trainer_report, "measure", lambda *_: none)
        for name in ("nnUNet_npp", "nnUNet_nps"):
            patch.setenv(name, "0")
        for trainer in TRAINERS.values():
            builder = getattr(trainer, "builder", None)
            if builder is not None:  # UNETR's checkpoint takes a gigabyte
                patch.setattr(trainer, "builder", staticmethod(partial(builder, **SMALL[builder])))
        patch.setenv(EXT_TRAINER_VARIABLE, f"{users_trainer(root / 'trainers')}{os.pathsep}{shim_directory()}")
        assert main(arguments(root, ALL)) == 0
    return root


def users_trainer(folder: Path) -> Path:
    """A folder as a user has it in nnUNet_extTrainer."""
    folder.mkdir()
    (folder / "users_trainers.py").write_text(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        f"class {OTHERS[-1]}(nnUNetTrainer): ...\n"
    )
    return folder


def arguments(root: Path, trainers: Sequence[str], *more: str) -> list[str]:
    options = ("-o", str(root / "study"), "--budget", BUDGET, "-device", "cpu")
    return ["-d", "951", "-c", "2d", "-tr", *trainers, *options, *more]


def run_in_process(command: Sequence[str], log_file: Path, *, on_tick: Callable[[str], None], **_: object) -> None:
    """In the place of `run_logged`: the function that the command's script calls."""
    program, *rest = command
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        if program == "python":
            assert rest[:2] == ["-m", measure_costs.__name__]
            code = measure_costs.main(rest[2:])
        else:
            (script,) = entry_points(group="console_scripts", name=program)
            patch.setattr(sys, "argv", [program, *rest])
            code = script.load()()
    with log_file.open("a") as log:
        log.write(printed.getvalue())
    if code:
        raise CommandFailed(f"exit code {code}: {printed.getvalue()[-2000:]}")
    on_tick(printed.getvalue())


@pytest.mark.end_to_end
def test_all_trainers(compared):
    results = load_results(compared / "study" / "results.json")
    assert {run.trainer for run in results.runs} == set(ALL) and len(results.runs) == len(ALL)
    for run in results.runs:
        assert run.complete and run.failure is None, run.failure
        assert run.name == f"{run.trainer}_{BUDGET}_seed0"
        assert len(run.epochs) == 1
        assert sorted(run.evaluation["cases"]) == ["case_0", "case_1", "case_2"]
        assert results.calibration[run.trainer]["train_seconds"] > 0
        assert results.complexity[run.trainer]["parameters"] > 1e4
    report = (compared / "study" / "report.md").read_text()
    for trainer in (*TRAINERS, *OTHERS):
        assert trainer.removeprefix("nnUNetTrainer") in report
    figures = len(list((compared / "study" / "figures").glob("*.png")))
    assert figures and (compared / "study" / "report.html").read_text().count("data:image/png;base64,") == figures
    # What the calibration trained is not among the user's results.
    models = {path.name.partition("__")[0] for path in (compared / "nnUNet_results" / DATASET).iterdir()}
    assert models == {run.name for run in results.runs}


@pytest.mark.end_to_end
def test_installed_command(compared):
    """One trainer, by the commands as they are installed: what is complete is kept, another seed is trained."""
    script = Path(sys.executable).with_name("nnUNetv2_lightm")
    environment = {**os.environ, **{name: str(compared / name) for name in FOLDERS}}
    workers = {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1", "nnUNet_npp": "0", "nnUNet_nps": "0"}
    done = subprocess.run(
        [script, "benchmark", *arguments(compared, ["nnUNetTrainerLightMUNet"], "--seeds", "0", "1")],
        env={**environment, **workers, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    steps = [line for line in done.stdout.splitlines() if " LightMUNet_seed0_fold0 " in line]
    assert any(" train " in line for line in steps) and all("complete already" in line for line in steps)
    runs = load_results(compared / "study" / "results.json").runs
    assert all(run.complete for run in runs) and len(runs) > 2, "the other trainers' runs stay"
    first, second = (run for run in runs if run.trainer == "nnUNetTrainerLightMUNet")
    assert (first.seed, second.seed) == (0, 1)
    assert second.name == f"nnUNetTrainerLightMUNet_{BUDGET}_seed1"

"""The search for a recipe, on cases that the study does not score: every trial, including failed ones.

    python -m benchmarks.accuracy.search FOLDER             # all trials that are not in results/search.json
    python -m benchmarks.accuracy.search FOLDER --collect   # existing results, into results/search.json

Data and plans are the study's (study.py), in FOLDER. On the hippocampus the trials use fold 1, whose validation cases
the study does not score. On the X-rays they use a fold that splits_final.json lacks, for which nnU-Net splits the
training cases at random; the study's test cases are not among them. However it ends, the same command continues.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

from nnunetv2_lightm.files import write_text
from nnunetv2_lightm.runs.training_log import read_training_log

from .comparisons import CHEST, HIPPOCAMPUS
from .study import EXT_TRAINER, VARIANT_TRAINERS, prepare

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "search.json"
FOLD = 1
DATA = {"X-rays": CHEST, "hippocampus": HIPPOCAMPUS}
NAMES = ("Base", "NoInit", "Polar3", "MuonLR4e3", "ThreeSteps", "MuonLR1e3", "Momentum09", "Decay1e1")
COMPLETE, FAILED = "complete", "failed"


@dataclass(frozen=True)
class Trial:
    """A training of one of variants/search_trials.py.

    Attributes:
        name: Its trainer, nnUNetTrainerTrialNAME.
        data: A key of ``DATA``.
        budget: Suffix of the trainer.
    """

    name: str
    data: str
    budget: str

    @property
    def trainer(self) -> str:
        return f"nnUNetTrainerTrial{self.name}_{self.budget}"

    @property
    def command(self) -> list[str]:
        data = DATA[self.data]
        return [
            "nnUNetv2_train",
            str(data.number),
            data.configuration,
            str(FOLD),
            "-p",
            data.plans,
            "-tr",
            self.trainer,
            "-device",
            "cpu",
            "--c",
        ]

    def folder(self, results: Path) -> Path:
        """The fold's folder below nnUNet_results."""
        data = DATA[self.data]
        return results / data.name / f"{self.trainer}__{data.plans}__{data.configuration}" / f"fold_{FOLD}"


TRIALS = (
    *(Trial(name, "X-rays", "20epochs_16iters_seed0") for name in NAMES),
    *(Trial(name, "hippocampus", "20epochs_20iters_seed0") for name in NAMES),
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--collect", action="store_true", help="run nothing")
    arguments = parser.parse_args(argv)
    folder = arguments.folder.absolute()
    known = {_key(entry): entry for entry in json.loads(RESULTS.read_text())} if RESULTS.exists() else {}
    for trial in TRIALS:
        if known.get(_key(asdict(trial)), {}).get("state") == COMPLETE:
            continue
        failure = None if arguments.collect else train(trial, folder)
        entry = collect(trial, folder / "search", failure)
        if entry is not None:
            known[_key(asdict(trial))] = entry
            ordered = [known[key] for key in map(_key, map(asdict, TRIALS)) if key in known]
            write_text(RESULTS, "[\n" + ",\n".join(map(json.dumps, ordered)) + "\n]\n")
    return 0


def train(trial: Trial, folder: Path) -> int | None:
    """Train, or continue. Returns the exit code of a failed training.

    Raises: SystemExit: with that code, if it was interrupted.
    """
    folders = {f"nnUNet_{kind}": str(folder / kind) for kind in ("raw", "preprocessed")}
    environment = {
        **{"nnUNet_n_proc_DA": "2", "nnUNet_def_n_proc": "2", "OMP_WAIT_POLICY": "PASSIVE"},
        **os.environ,
        **folders,
        "nnUNet_results": str(folder / "search"),
        EXT_TRAINER: os.pathsep.join(filter(None, (str(VARIANT_TRAINERS), os.environ.get(EXT_TRAINER)))),
    }
    folder.mkdir(parents=True, exist_ok=True)
    prepare(folder, DATA[trial.data], environment)
    print(shlex.join(trial.command), flush=True)
    code = subprocess.run(trial.command, cwd=folder, env=environment, check=False).returncode
    if code < 0 or code > 128:
        sys.exit(code)
    return code or None


def collect(trial: Trial, results: Path, failure: int | None) -> dict | None:
    """The result of a trial, mean Dice over validation cases and classes; None if it never started or is running."""
    fold = trial.folder(results)
    summary, average = (_dice(fold / name / "summary.json") for name in ("validation", "validation_ema"))
    if summary is None and failure is None:
        return None
    return {
        **asdict(trial),
        "changed": _documented(trial),
        "state": COMPLETE if failure is None else f"{FAILED}, exit code {failure}",
        "dice": summary,
        "dice_of_averaged_weights": average,
        "pseudo_dice": [list(epoch.pseudo_dice) for epoch in read_training_log(fold)] if summary is not None else [],
    }


def _dice(file: Path) -> float | None:
    return json.loads(file.read_text())["foreground_mean"]["Dice"] if file.exists() else None


def _documented(trial: Trial) -> str:
    trials = import_module(f"{__package__}.variants.search_trials")
    return getattr(trials, f"nnUNetTrainerTrial{trial.name}").__doc__


def _key(entry: Mapping) -> tuple[str, str, str]:
    return entry["name"], entry["data"], entry["budget"]


if __name__ == "__main__":
    raise SystemExit(main())

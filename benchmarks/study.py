"""The comparisons of docs/study: LightM-UNet, stock nnU-Net and the other networks on two real data sets.

    python benchmarks/study.py FOLDER                          # everything: a day or more on two cores
    python benchmarks/study.py FOLDER --only chest_seconds     # one comparison
    python benchmarks/study.py FOLDER --publish                # what is there, into docs/study and results/study

NNUNETV2_LIGHTM_DATA holds Task04_Hippocampus (MSD) and chest_xray_masks_and_labels_256 (Montgomery & Shenzhen, Kaggle's
layout). nnU-Net's three folders and the comparisons are made in FOLDER. Ended in any way, the same command goes on.

All methods have the same plans, with a patch of the whole image and the batch that a CPU can train; the budget in
iterations is the one that stock nnU-Net got by the clock on the machine of the study.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from nnunetv2_lightm.study.benchmark.report import write_report
from nnunetv2_lightm.study.benchmark.results import BenchmarkResults, load_results, write_results
from nnunetv2_lightm.study.pipeline import Pipeline, PipelineError, Step
from nnunetv2_lightm.study.process import CommandFailed
from nnunetv2_lightm.study.progress import Progress

HERE = Path(__file__).resolve().parent
PUBLISHED, REPORT = HERE / "results" / "study", HERE.parent / "docs" / "study"
TITLE = "LightM-UNet beside nnU-Net and others, on a CPU"
RIVALS = ("nnUNetTrainer", "nnUNetTrainerLightMUNet")
METHODS = (
    *RIVALS,
    "nnUNetTrainerLightMUNetPaperSGD",
    "nnUNetTrainerLightMUNetReleased",
    "nnUNetTrainerUMambaBot",
    "nnUNetTrainerSegResNet",
    "nnUNetTrainerUNETR",
    "nnUNetTrainerSwinUNETR",
)
ABLATIONS = tuple(f"nnUNetTrainerLightMUNet{name}" for name in ("Conv3", "SelfAttention", "NoAdjustment", "NoResidual"))


@dataclass(frozen=True)
class DataSet:
    """A data set and its plans.

    Attributes:
        name: As nnU-Net knows it.
        configuration: That is trained.
        plans: Identifier of the plans.
        convert: Makes the raw data set from the one in NNUNETV2_LIGHTM_DATA, "{data}".
        gpu_memory_target: With which nnU-Net plans the batch, in GB.
        pictured: Whether its licence lets its images be pictured in a report under another one.
    """

    name: str
    configuration: str
    plans: str
    convert: str
    gpu_memory_target: float
    pictured: bool

    @property
    def number(self) -> int:
        return int(self.name[7:10])

    def steps(self, folder: Path, data: Path) -> list[Step]:
        """From the images to the preprocessed data set."""
        raw, preprocessed = folder / "raw" / self.name, folder / "preprocessed" / self.name
        plan = f"nnUNetv2_plan_experiment -d {self.number} -gpu_memory_target {self.gpu_memory_target}"
        cases = f"nnUNetv2_preprocess -d {self.number} -plans_name {self.plans} -c {self.configuration} -np 2"
        made = (
            ("convert", self.convert.format(data=shlex.quote(str(data))), raw),
            (
                "fingerprint",
                f"nnUNetv2_extract_fingerprint -d {self.number}",
                preprocessed / "dataset_fingerprint.json",
            ),
            ("plan", f"{plan} -overwrite_plans_name {self.plans}", preprocessed / f"{self.plans}.json"),
            ("preprocess", cases, preprocessed / f"{self.plans}_{self.configuration}"),
        )
        return [
            Step(name, tuple(shlex.split(command)), (output,), leftovers=(output,)) for name, command, output in made
        ]


CHEST = DataSet(
    "Dataset802_MontgomeryShenzhen",
    "2d",
    "nnUNetPlans_batch4",
    "nnUNetv2_lightm convert montgomery-shenzhen {data}/chest_xray_masks_and_labels_256 --resize 128 128",
    0.16,
    pictured=False,
)
HIPPOCAMPUS = DataSet(
    "Dataset004_Hippocampus",
    "3d_fullres",
    "nnUNetPlans_batch2",
    "nnUNetv2_convert_MSD_dataset -i {data}/Task04_Hippocampus -np 2",
    0.3,
    pictured=True,
)


@dataclass(frozen=True)
class Comparison:
    """One call of `nnUNetv2_lightm benchmark`."""

    title: str
    data: DataSet
    methods: tuple[str, ...]
    budget: tuple[str, ...]

    def command(self, name: str) -> list[str]:
        data = ("-d", str(self.data.number), "-c", self.data.configuration, "-p", self.data.plans)
        output = ("-device", "cpu", "--title", self.title, "-o", f"comparisons/{name}")
        return ["nnUNetv2_lightm", "benchmark", *data, "-tr", *self.methods, *self.budget, *output]


COMPARISONS = {
    "chest_seconds": Comparison(
        "Chest X-rays, 2D: 8 minutes of training each", CHEST, METHODS, ("--wall-clock", "8min", "--seeds", "0", "1")
    ),
    "chest_iterations": Comparison(
        "Chest X-rays, 2D: 640 iterations each",
        CHEST,
        (*METHODS, *ABLATIONS),
        ("--budget", "20epochs_32iters", "--calibration-of", "comparisons/chest_seconds"),
    ),
    "hippocampus_seconds": Comparison(
        "Hippocampus, 3D: 30 minutes of training each",
        HIPPOCAMPUS,
        METHODS,
        ("--wall-clock", "30min", "--seeds", "0", "1"),
    ),
    "hippocampus_iterations": Comparison(
        "Hippocampus, 3D: 1,180 iterations each",
        HIPPOCAMPUS,
        METHODS,
        ("--budget", "20epochs_59iters", "--calibration-of", "comparisons/hippocampus_seconds"),
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--only", nargs="+", choices=COMPARISONS, default=list(COMPARISONS), metavar="NAME")
    parser.add_argument("--publish", action="store_true")
    arguments = parser.parse_args(argv)
    if arguments.publish:
        publish(arguments.folder, arguments.only)
        return 0
    arguments.folder.mkdir(parents=True, exist_ok=True)
    try:
        codes = [run(arguments.folder.absolute(), name) for name in arguments.only]
    except (PipelineError, CommandFailed) as error:
        sys.exit(str(error))
    return next((code for code in codes if code), 0)


def run(folder: Path, name: str) -> int:
    """Prepare the data set, if it is not there, and compare. Returns the exit code of the comparison."""
    data = COMPARISONS[name].data
    folders = {f"nnUNet_{kind}": str(folder / kind) for kind in ("raw", "preprocessed", "results")}
    few_cores = {"nnUNet_n_proc_DA": "2", "nnUNet_def_n_proc": "2", "OMP_WAIT_POLICY": "PASSIVE"}
    environment = {**few_cores, **os.environ, **folders}
    prepare(folder, data, environment)
    command = COMPARISONS[name].command(name)
    print(shlex.join(command), flush=True)
    return subprocess.run(command, cwd=folder, env=environment, check=False).returncode


def prepare(folder: Path, data: DataSet, environment: Mapping[str, str]) -> None:
    """Convert, plan and preprocess what is not there yet."""
    source = os.environ.get("NNUNETV2_LIGHTM_DATA")
    if not source:
        sys.exit("NNUNETV2_LIGHTM_DATA is not set: export NNUNETV2_LIGHTM_DATA=FOLDER, with the data sets in it")
    steps = data.steps(folder, Path(source).absolute())
    state = folder / "preparation" / data.name
    pipeline = Pipeline(state, steps, environment=environment, version=f"nnunetv2 {version('nnunetv2')}")
    progress = Progress(steps)
    pipeline.run(progress.update, on_skip=progress.skip, on_end=progress.end)


def publish(folder: Path, names: Sequence[str]) -> None:
    """Write the comparisons that there are into the repository, and the report."""
    found = {name: folder / "comparisons" / name / "results.json" for name in names}
    results = {name: load_results(path) for name, path in found.items() if path.exists()}
    PUBLISHED.mkdir(parents=True, exist_ok=True)
    for name, result in results.items():
        write_results(_without_folders(result), PUBLISHED / f"{name}.json")
    pictured = [
        result if COMPARISONS[name].data.pictured else _without_folders(result) for name, result in results.items()
    ]
    write_report(pictured, REPORT, TITLE)
    print(*(PUBLISHED / f"{name}.json" for name in results), REPORT / "report.md", sep="\n")


def _without_folders(results: BenchmarkResults) -> BenchmarkResults:
    none = dict.fromkeys(("predictions", "references", "images"))
    return replace(results, runs=tuple(replace(run, **none) for run in results.runs))


if __name__ == "__main__":
    sys.exit(main())

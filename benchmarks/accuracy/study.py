"""The comparisons of docs/study: LightM-UNet, its variants, stock nnU-Net and other networks on two real data sets.

    python -m benchmarks.accuracy.study FOLDER                          # everything: a day or more on two cores
    python -m benchmarks.accuracy.study FOLDER --only chest_seconds     # one comparison
    python -m benchmarks.accuracy.study FOLDER --publish                # existing results, into docs/study and results/

NNUNETV2_LIGHTM_DATA holds Task04_Hippocampus (MSD) and chest_xray_masks_and_labels_256 (Montgomery & Shenzhen, Kaggle's
layout). nnU-Net's three folders and the comparisons are made in FOLDER. However it ends, the same command
continues; published runs count as done, unless --anew is given.

All methods share the same plans, with a patch of the whole image and a batch that a CPU can train; the budget in
iterations is what stock nnU-Net reached in the given time on the machine of the study. Stock nnU-Net
and LightMUNet have three seeds, LightMUNetAdamW two.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from nnunetv2_lightm.benchmark.report.document import write_report
from nnunetv2_lightm.benchmark.results import ITERATIONS, BenchmarkResults
from nnunetv2_lightm.files import RECORD_FILE
from nnunetv2_lightm.runs.pipeline import Pipeline, PipelineError
from nnunetv2_lightm.runs.process import CommandFailed
from nnunetv2_lightm.runs.progress import Progress

from .comparisons import COMPARISONS, Comparison, DataSet
from .costs import measure_beside_stock, with_costs_beside_stock
from .study_results import combine, load_parts, publish_results, with_images, write_costs_of

HERE = Path(__file__).resolve().parent
PUBLISHED, REPORT = HERE / "results", HERE.parents[1] / "docs" / "study"
VARIANT_TRAINERS, EXT_TRAINER = HERE / "variants", "nnUNet_extTrainer"
RUN_FAILED = 1  # exit code of a comparison if a run failed; the other comparisons still run
TITLE = "LightM-UNet compared with nnU-Net and others, on a CPU"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--only", nargs="+", choices=COMPARISONS, default=list(COMPARISONS), metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="default: all of the study")
    parser.add_argument(
        "--shared-machine",
        action="store_true",
        help="measure nothing, for a machine that is shared with other work: leaves out runs that need it",
    )
    parser.add_argument("--publish", action="store_true", help="publish the existing results, run nothing")
    parser.add_argument("--anew", action="store_true", help="ignore what is published")
    arguments = parser.parse_args(argv)
    if arguments.publish:
        publish(arguments.folder.absolute())
        return 0
    arguments.folder.mkdir(parents=True, exist_ok=True)
    options = {"seeds": arguments.seeds, "anew": arguments.anew, "timings": not arguments.shared_machine}
    try:
        codes = [run(arguments.folder.absolute(), name, **options) for name in arguments.only]
    except (PipelineError, CommandFailed) as error:
        sys.exit(str(error))
    return next((code for code in codes if code), 0)


def run(folder: Path, name: str, *, seeds: Sequence[int] | None, anew: bool, timings: bool) -> int:
    """Prepare the data set, if necessary, and compare. Returns the exit code of the comparison."""
    comparison = COMPARISONS[name]
    folders = {f"nnUNet_{kind}": str(folder / kind) for kind in ("raw", "preprocessed", "results")}
    few_cores = {"nnUNet_n_proc_DA": "2", "nnUNet_def_n_proc": "2", "OMP_WAIT_POLICY": "PASSIVE"}
    trainers = {EXT_TRAINER: os.pathsep.join(filter(None, (str(VARIANT_TRAINERS), os.environ.get(EXT_TRAINER))))}
    environment = {**few_cores, **os.environ, **folders, **trainers}
    prepare(folder, comparison.data, environment)
    published = None if anew else results_so_far(name, None)
    done = {(run.trainer, run.seed) for run in published.runs if run.complete} if published else set()
    code = 0
    for seed, methods in comparison.seeds.items():
        left = [method for method in methods if (method, seed) not in done]
        if not left or seed not in (seeds or comparison.seeds):
            continue
        costs = costs_of(comparison, left if timings else (), folder, environment, anew=anew)
        if not timings and comparison.budget[0] != "--budget":
            left = [method for method in left if costs and method in costs.calibration]
            if not left:
                continue
        known = f"costs/{comparison.costs_of}" if costs else None
        if costs:
            write_costs_of(costs, folder / known)
        command = comparison.command(left, seed, f"comparisons/{name}/seed{seed}", known, timings=timings)
        print(shlex.join(command), flush=True)
        returned = subprocess.run(command, cwd=folder, env=environment, check=False).returncode
        code = code or returned
        if returned not in (0, RUN_FAILED):
            break
    return code


def costs_of(
    comparison: Comparison, methods: Sequence[str], folder: Path, environment: Mapping[str, str], *, anew: bool
) -> BenchmarkResults | None:
    """The costs that the study knows; those of `methods` that it lacks are measured next to stock's.

    Returns: None if it knows none yet, and the comparison measures all.
    """
    costs = results_so_far(comparison.costs_of, folder, anew)
    if costs is None or not costs.calibration:
        return costs
    costs = with_costs_beside_stock(costs, comparison, folder)
    unknown = [method for method in methods if method not in costs.calibration]
    if unknown:
        measure_beside_stock(comparison, unknown, folder, environment)
    return with_costs_beside_stock(costs, comparison, folder)


def prepare(folder: Path, data: DataSet, environment: Mapping[str, str]) -> None:
    """Convert, plan and preprocess what is missing."""
    source = os.environ.get("NNUNETV2_LIGHTM_DATA")
    if not source:
        sys.exit("NNUNETV2_LIGHTM_DATA is not set: export NNUNETV2_LIGHTM_DATA=FOLDER, with the data sets in it")
    steps = data.steps(folder, Path(source).absolute())
    state = folder / "preparation" / data.name
    pipeline = Pipeline(state, steps, environment=environment, version=f"nnunetv2 {version('nnunetv2')}")
    progress = Progress(steps)
    pipeline.run(progress.update, on_skip=progress.skip, on_end=progress.end)


def results_so_far(name: str, folder: Path | None, anew: bool = False) -> BenchmarkResults | None:
    """A comparison's published results and those in the folder, combined; None if there are none."""
    comparison = COMPARISONS[name]
    parts = load_parts(_files(name, folder, anew))
    if not anew:
        parts = [*_shared_runs(comparison), *parts]
    if not parts:
        return None
    again = ("python", "-m", "benchmarks.accuracy.study", "FOLDER", "--only", name, "--anew")
    combined = replace(
        combine(parts, comparison.methods),
        title=comparison.title,
        commands=(again,),
        not_pictured=comparison.data.not_pictured,
    )
    return with_costs_beside_stock(combined, comparison, folder) if folder else combined


def _files(name: str, folder: Path | None, anew: bool = False) -> list[Path]:
    """The files that may hold results of a comparison."""
    files = [] if anew else [PUBLISHED / f"{name}.json"]
    if folder is not None:
        files += [folder / "comparisons" / name / f"seed{seed}" / "results.json" for seed in COMPARISONS[name].seeds]
    return files


def _shared_runs(comparison: Comparison) -> list[BenchmarkResults]:
    """Published runs of other comparisons that are runs of this one too: those with the same budget, and stock
    nnU-Net's, whose iterations are the budget of the others, so that `benchmark` would reuse its training."""
    option, budget = comparison.budget
    others = {
        PUBLISHED / f"{name}.json": other.budget == comparison.budget
        for name, other in COMPARISONS.items()
        if other.data == comparison.data and other != comparison
    }
    parts = load_parts([file for file, same in others.items() if same])
    if option != "--budget":
        return parts
    for part in load_parts([file for file, same in others.items() if not same]):
        runs = [run for run in part.runs if run.complete and run.name == f"{run.trainer}_{budget}_seed{run.seed}"]
        if runs:
            parts.append(replace(part, equal=ITERATIONS, budget=budget, runs=tuple(runs)))
    return parts


def publish(folder: Path) -> None:
    """Write the existing results of all comparisons, and the report, into the repository."""
    report = []
    for name, comparison in COMPARISONS.items():
        results = results_so_far(name, folder)
        if results is None or len({run.trainer for run in results.runs if run.complete}) < 2:
            continue  # a single method is not a comparison
        if not any(file.exists() for file in _files(name, folder)):
            continue  # neither are runs of another comparison
        data, file = comparison.data, PUBLISHED / f"{name}.json"
        publish_results(results, file, predictions=not data.not_pictured)
        (published,) = load_parts([file])
        if not data.not_pictured:
            references = folder / "preprocessed" / data.name / "gt_segmentations"
            published = with_images(published, references, folder / "raw" / data.name / "imagesTr")
        report.append(published)
        print(file)
    replace_report(report, REPORT)
    print(REPORT / "report.md")


def replace_report(results: Sequence[BenchmarkResults], folder: Path) -> None:
    """Write the report over the one in the repository; git keeps that, so none is set aside."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as made:
        shutil.copytree(folder, made, dirs_exist_ok=True)
        write_report(results, Path(made), TITLE)
        shutil.copytree(made, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("kept_*", RECORD_FILE))
    text = (folder / "report.md").read_text(encoding="utf-8")
    for figure in (folder / "figures").glob("comparison*.png"):
        if f"(figures/{figure.name})" not in text:
            figure.unlink()


if __name__ == "__main__":
    sys.exit(main())

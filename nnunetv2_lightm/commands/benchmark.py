"""``nnUNetv2_lightm benchmark``: trainers on the same plans, split and budget, trained, predicted and evaluated."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..benchmark.sharing import shared_words
from ..escaping import escape_terminal
from ..option_types import finite_number, whole_number

if TYPE_CHECKING:
    from ..benchmark.settings import Settings
    from ..complexity.plans import PlannedConfiguration


def main(argv: list[str]) -> int:
    """Run the command. Returns its exit code: 0 done, 1 something failed, 2 wrongly called, 130 interrupted."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.slurm and arguments.launcher != "slurm":
        parser.error("--slurm goes with --launcher slurm")
    if arguments.nsd_tolerance_mm is not None and not arguments.surface:
        parser.error("--nsd-tolerance-mm goes with --surface")
    # After the arguments: `--help` loads neither torch nor scipy.
    from ..benchmark.comparison import Comparison
    from ..benchmark.costs import BudgetTooSmall
    from ..benchmark.earlier import check_folder
    from ..benchmark.launchers import SlurmLauncher, parse_slurm_options, run_here
    from ..benchmark.results import ResultsError
    from ..benchmark.settings import (
        SettingsError,
        check_data,
        check_trainers,
        parse_budget,
        parse_wall_clock,
    )
    from ..evaluation.scores import EvaluationError
    from ..evaluation.surface_scores import require_monai
    from ..runs.pipeline import PipelineError
    from ..runs.process import end_all_by_force
    from ..signals import exit_code, interruptions

    expected = (SettingsError, ResultsError, BudgetTooSmall, PipelineError, EvaluationError, OSError)
    try:
        check_trainers(arguments.tr)
        budget = parse_wall_clock(arguments.wall_clock) if arguments.budget is None else parse_budget(arguments.budget)
        planned = check_data(arguments.d, arguments.c, arguments.p, arguments.folds)
        settings = _settings(arguments, planned, budget, argv)
        if arguments.no_timings and settings.needs_costs and not arguments.calibration_of:
            parser.error("--no-timings goes with a --budget of iterations, e.g. 20epochs_100iters, or --calibration-of")
        check_folder(settings, planned)
        if arguments.surface:
            require_monai()
        launch = run_here
        if arguments.launcher == "slurm":
            launch = SlurmLauncher(settings.folder / "slurm", parse_slurm_options(arguments.slurm))
        with interruptions(end_all_by_force):
            complete = Comparison(settings, planned, launch).run()
    except expected as error:
        print(f"\nbenchmark: {escape_terminal(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        jobs = "; the jobs continue" if arguments.launcher == "slurm" else ""
        print(f"\nbenchmark: interrupted{jobs}; the same command continues from here", file=sys.stderr)
        return exit_code(error)
    if not complete:
        logs = escape_terminal(settings.folder / "logs")
        print(f"\nbenchmark: some runs are not complete; the same command tries them again. Logs: {logs}")
        return 1
    files = f"results:  {settings.results_file}\nreport:   {settings.folder / 'report.html'}, and report.md"
    print(escape_terminal(f"\n{files}"))
    return 0


def _settings(
    arguments: argparse.Namespace, planned: PlannedConfiguration, budget: str | float, argv: Sequence[str]
) -> Settings:
    from ..benchmark.settings import Settings

    surface = ("--surface",) if arguments.surface else ()
    if arguments.nsd_tolerance_mm is not None:
        surface += ("--nsd-tolerance-mm", f"{arguments.nsd_tolerance_mm:g}")
    equal = f"{budget} each" if arguments.budget is not None else f"{arguments.wall_clock} of training each"
    return Settings(
        folder=arguments.o.absolute(),
        dataset=planned.dataset,
        configuration=arguments.c,
        plans=arguments.p,
        trainers=tuple(arguments.tr),
        budget=budget,
        folds=tuple(dict.fromkeys(arguments.folds)),
        seeds=tuple(dict.fromkeys(arguments.seeds)),
        device=arguments.device,
        evaluation=surface,
        title=arguments.title or f"{planned.dataset}, {arguments.c}: {equal}",
        command=shared_words(["nnUNetv2_lightm", "benchmark", *argv]),
        calibration_of=arguments.calibration_of and arguments.calibration_of.absolute(),
        timings=not arguments.no_timings,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_lightm benchmark",
        description="Compare trainers on a data set that is planned and preprocessed: train each with nnUNetv2_train, "
        "predict the test split (imagesTs and labelsTs of the raw data set; without them the validation cases of the "
        "fold are scored) with nnUNetv2_predict, evaluate, and write results.json, report.md and report.html.",
        epilog="First the cost of an iteration is measured, with the trainers taking turns. With --wall-clock, each "
        "trainer gets as many iterations as fit into that time at these costs: its learning-rate schedule is complete, "
        "and noise on the machine has no influence. Trainings appear as TRAINER_BUDGET_seedN in nnUNet_results; "
        "complete ones are reused, unfinished ones continued (do not start the command while one of them is running). "
        "However it ends, repeat the command to continue. A failing run does not stop the others; the same command "
        "retries it.",
    )
    parser.add_argument("-d", required=True, metavar="DATASET", help="number or name of the data set")
    parser.add_argument("-c", required=True, metavar="CONFIGURATION", help="e.g. 3d_fullres")
    parser.add_argument(
        "-tr", required=True, nargs="+", metavar="TRAINER", help="any trainers that nnU-Net finds, without a budget"
    )
    parser.add_argument("-p", default="nnUNetPlans", metavar="PLANS", help="plans identifier (default: %(default)s)")
    parser.add_argument("-o", required=True, type=Path, metavar="FOLDER", help="output folder")
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--budget", metavar="BUDGET", help="the same iterations for all, e.g. 20epochs_100iters")
    budget.add_argument("--wall-clock", metavar="TIME", help="the same time for all: 90s, 60min, 2h")
    parser.add_argument(
        "--calibration-of",
        type=Path,
        metavar="FOLDER",
        help="reuse the costs measured by this comparison of the same plans; missing ones are measured",
    )
    parser.add_argument(
        "--no-timings",
        action="store_true",
        help="skip all measurements of time and memory, e.g. on a shared machine; needs iterations or --calibration-of",
    )
    parser.add_argument(
        "--folds", nargs="+", type=whole_number(at_least=0), default=[0], metavar="N", help="default: 0"
    )
    seed = whole_number(at_least=0, at_most=10**9 - 1)  # nine digits, as in a trainer's name
    parser.add_argument("--seeds", nargs="+", type=seed, default=[0], metavar="N", help="default: 0")
    parser.add_argument("-device", choices=("cpu", "cuda", "mps"), default="cuda", help="default: %(default)s")
    parser.add_argument(
        "--launcher",
        choices=("local", "slurm"),
        default="local",
        help="run tasks one after the other (default), or each as a Slurm job",
    )
    parser.add_argument(
        "--slurm",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="options of each job, as submitit names them: partition=gpu time=240 gpus_per_node=1 cpus_per_task=8 "
        "mem=32GB; time, in minutes, is required",
    )
    parser.add_argument("--surface", action="store_true", help="also HD95 and NSD; needs MONAI (extra `metrics`)")
    parser.add_argument(
        "--nsd-tolerance-mm",
        type=finite_number("mm", at_least=0),
        metavar="MM",
        help="tolerance of NSD, as for evaluate",
    )
    parser.add_argument("--title", help="title of the report (default: data set, configuration and budget)")
    return parser

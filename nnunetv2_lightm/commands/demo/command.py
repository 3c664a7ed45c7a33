"""``nnUNetv2_lightm demo``: every step once, on phantoms, with the commands you would use on real data."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ...escaping import escape_terminal
from ...option_types import whole_number
from ...runs.pipeline import Pipeline, PipelineError, software_versions
from ...runs.process import CommandFailed, end_all_by_force
from ...runs.progress import Progress
from ...signals import exit_code, interruptions
from .steps import TRAINER, DemoSettings, demo_environment, demo_steps


def run_demo(settings: DemoSettings) -> None:
    """Run the steps that are not complete, then write the report and print its table.

    Raises:
        PipelineError: if the folder cannot be used.
        CommandFailed: if a step fails.
        EvaluationError: if the results cannot be read.
    """
    from .report import report_files, write_report  # loads torch and matplotlib, which `--help` does not need

    environment = demo_environment(settings.folder)
    steps = demo_steps(settings)
    pipeline = Pipeline(settings.folder, steps, environment=environment, version=software_versions())
    folder = escape_terminal(settings.folder)
    print(f"The demo works in {folder} only, with nnUNet_raw, nnUNet_preprocessed and nnUNet_results there.")
    print("If interrupted, the same command continues.\n")
    progress = Progress(steps)
    pipeline.run(progress.update, on_skip=progress.skip, on_end=progress.end)
    seconds = {step.name: pipeline.seconds(step) for step in steps}
    with pipeline.writing(*report_files(settings.folder)):
        tables = write_report(settings, steps, seconds)
    print("\n" + tables)


def main(argv: list[str]) -> int:
    """Run the command. Returns its exit code: 0 done, 1 a step failed, 130 interrupted."""
    arguments = _parser().parse_args(argv)
    settings = DemoSettings(
        folder=arguments.folder.absolute(),
        trainer=arguments.trainer,
        device=arguments.device,
        num_cases=arguments.num_cases,
        shape=tuple(arguments.shape),
    )
    from ...evaluation.scores import EvaluationError

    try:
        with interruptions(end_all_by_force):
            run_demo(settings)
    except (PipelineError, CommandFailed, EvaluationError, OSError) as error:
        print(f"\ndemo: {escape_terminal(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print("\ndemo: interrupted; the same command continues from here", file=sys.stderr)
        return exit_code(error)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_lightm demo",
        description="Generate CT-like phantoms, then convert, plan, preprocess, train, predict and evaluate with the "
        "commands you would use on real data. Ends with a table, pictures, and the list of commands. Everything stays "
        "in one folder; your nnU-Net folders are not touched.",
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("nnunetv2_lightm_demo"), help="folder for everything (default: %(default)s)"
    )
    parser.add_argument("--device", choices=("cpu", "cuda", "mps"), default="cpu", help="default: %(default)s")
    parser.add_argument("--trainer", default=TRAINER, help="any nnU-Net trainer (default: %(default)s)")
    parser.add_argument(
        "--num-cases",
        type=whole_number(at_least=1),
        default=DemoSettings.num_cases,
        help="number of phantoms, a fifth of them held out (default: %(default)s)",
    )
    parser.add_argument(
        "--shape",
        type=whole_number(at_least=16),
        nargs=3,
        metavar=("Z", "Y", "X"),
        default=DemoSettings.shape,
        help="size of a phantom in voxels (default: %(default)s)",
    )
    return parser

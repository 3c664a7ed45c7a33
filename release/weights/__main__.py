"""The command: ``python -m release.weights NAME FOLDER``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_lightm.benchmark.settings import SettingsError, parse_budget
from nnunetv2_lightm.deploy.errors import ExportError
from nnunetv2_lightm.escaping import escape_terminal
from nnunetv2_lightm.evaluation.scores import EvaluationError
from nnunetv2_lightm.runs.pipeline import PipelineError
from nnunetv2_lightm.runs.process import CommandFailed, end_all_by_force
from nnunetv2_lightm.signals import exit_code, interruptions

from .hold_out import WeightsError
from .make import make_weights
from .models import MODELS, TRAINER

FAILURES = (WeightsError, PipelineError, CommandFailed, ExportError, EvaluationError, OSError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code: 0 made, 1 not, 130 interrupted."""
    arguments = _parser().parse_args(argv)
    budget = arguments.budget or MODELS[arguments.name].budget
    options = {"budget": budget, "device": arguments.device}
    try:
        with interruptions(end_all_by_force):
            out = make_weights(arguments.name, arguments.folder.absolute(), **options)
    except FAILURES as error:
        print(f"weights: {escape_terminal(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print("weights: interrupted; the same command continues from here", file=sys.stderr)
        return exit_code(error)
    print(escape_terminal(f"{out}, {out.stat().st_size / 1e6:.1f} MB; its card: {out.with_suffix('.md')}"))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m release.weights",
        description="Train a model to hand out, score it on cases that nothing has seen, and pack it with a model card "
        "for nnUNetv2_install_pretrained_model_from_zip. However it ends, the same command continues.",
        epilog="NNUNETV2_LIGHTM_DATA names the folder with the data sets; docs/guides/weights.md says which.",
    )
    parser.add_argument("name", choices=MODELS, metavar="NAME", help=f"{' or '.join(MODELS)}")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="at the end it has NAME.zip and NAME.md")
    budgets = ", ".join(f"{name} {model.budget}" for name, model in MODELS.items())
    parser.add_argument("--budget", type=_budget, help=f"of {TRAINER}; default: {budgets}")
    parser.add_argument("--device", choices=("cpu", "cuda", "mps"), default="cpu", help="default: %(default)s")
    return parser


def _budget(text: str) -> str:
    try:
        return parse_budget(text)
    except SettingsError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    raise SystemExit(main())

"""``nnUNetv2_lightm complexity``: the paper's tables counted in two conventions, or trainers counted and measured."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..escaping import escape_terminal

FORMATS = ("markdown", "csv", "json")


def main(argv: list[str]) -> int:
    """Print the report, or write it. Returns 0; 1 if something is missing; 2 if called wrongly."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    _check(parser, arguments)
    # After the arguments: `--help` loads neither torch nor scipy.
    from ..complexity.errors import ComplexityError
    from ..files import check_free, write_text

    if arguments.o is not None:
        check_free(arguments.o, overwrite=arguments.overwrite)
    try:
        report = _paper(arguments) if arguments.paper else _trainers(arguments)
    except ComplexityError as error:
        print(f"complexity: {escape_terminal(error)}", file=sys.stderr)
        return 1
    if arguments.o is None:
        print(report, end="")
    else:
        arguments.o.absolute().parent.mkdir(parents=True, exist_ok=True)
        write_text(arguments.o, report)
    return 0


# Each report is imported on use, so --help loads no torch, and neither report loads what only the other one needs.
def _paper(arguments: argparse.Namespace) -> str:
    from ..complexity.paper_report import paper_report

    return paper_report(arguments.format)


def _trainers(arguments: argparse.Namespace) -> str:
    from ..complexity.trainer_report import trainer_report

    return trainer_report(
        arguments.tr,
        arguments.d,
        arguments.c,
        arguments.p,
        device=None if arguments.count_only else arguments.device,
        output_format=arguments.format,
    )


def _check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Either --paper alone, or trainers with data set and configuration."""
    given = [option for option in ("tr", "d", "c") if getattr(arguments, option) is not None]
    if arguments.paper and given:
        parser.error(f"--paper goes without {', '.join(f'-{option}' for option in given)}")
    if not arguments.paper and len(given) < 3:
        parser.error("give --paper, or all of -tr, -d and -c")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_lightm complexity",
        usage="%(prog)s [-h] (--paper | -tr NAME [NAME ...] -d DATASET -c CONFIGURATION [-p PLANS]) [options]",
        description="Count parameters and multiply-adds (MACs). With --paper: Tables 1, 2 and 3 of the LightM-UNet "
        "paper, counted as the paper did and in full, and its claims checked against both; needs thop and MONAI "
        "(extras `paper` and `baselines`). Otherwise: the networks that trainers build for a configuration, with the "
        "seconds and memory of a forward pass and a training step, measured on this machine.",
    )
    parser.add_argument("--paper", action="store_true", help="report the paper's tables")
    parser.add_argument("-tr", nargs="+", metavar="NAME", help="trainers, any that nnU-Net finds")
    parser.add_argument("-d", metavar="DATASET", help="number or name of a data set that has been planned")
    parser.add_argument("-c", metavar="CONFIGURATION", help="e.g. 3d_fullres")
    parser.add_argument("-p", metavar="PLANS", default="nnUNetPlans", help="plans identifier (default: %(default)s)")
    parser.add_argument(
        "-device", choices=("cpu", "cuda"), default="cpu", help="device to measure on (default: %(default)s)"
    )
    parser.add_argument("--count-only", action="store_true", help="count, do not measure")
    parser.add_argument("--format", choices=FORMATS, default="markdown", help="default: %(default)s")
    parser.add_argument("-o", type=Path, metavar="FILE", help="write the report to this file instead of printing it")
    parser.add_argument("--overwrite", action="store_true", help="replace the file of -o if it exists")
    return parser

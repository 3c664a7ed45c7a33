"""``nnUNetv2_lightm plan``: a plans file that names LightMUNet, for nnU-Net's own trainers too."""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import sys
from importlib import import_module

from ..escaping import escape_terminal, shell_line
from ..nnunet import dataset_id
from ..option_types import finite_number, whole_number
from ..planning import PLANS_NAME, STOCK_PLANS_NAME


def main(argv: list[str]) -> int:
    """Plan, then print what was planned and what to run next. Returns: 0 planned, 1 the data set cannot be planned."""
    arguments = _parser().parse_args(argv)
    planning = import_module("nnunetv2_lightm.planning.datasets")
    try:
        # nnU-Net's planner prints every attempt; the result is printed below.
        with contextlib.redirect_stdout(io.StringIO()):
            plans = planning.plan_dataset(
                arguments.dataset,
                batch_size=arguments.batch_size,
                gpu_memory_gb=arguments.gpu_memory_gb,
                plans_name=arguments.plans_name,
                overwrite=arguments.overwrite,
            )
    except planning.PlanningError as error:
        print(f"plan: {escape_terminal(error)}", file=sys.stderr)
        return 1
    print(_report(plans, arguments.plans_name))
    return 0


def _report(plans, plans_name: str) -> str:
    number = dataset_id(plans.dataset_name)
    rows = [("CONFIGURATION", "PATCH", "BATCH", "GPU, GiB", "CPU, GiB")]
    for planned in plans.configurations:
        patch = "x".join(map(str, planned.patch_size))
        rows.append((planned.name, patch, str(planned.batch_size), f"{planned.gpu_gib:.1f}", f"{planned.cpu_gib:.1f}"))
    widths = [max(map(len, column)) for column in zip(*rows)]
    names = [planned.name for planned in plans.configurations]
    there = [planned.name for planned in plans.configurations if planned.preprocessed]
    missing = [name for name in names if name not in there]
    commands = []
    if missing:
        commands.append(shell_line("nnUNetv2_preprocess", "-d", number, "-plans_name", plans_name, "-c", *missing))
    train = shell_line("nnUNetv2_train", number, names[-1], 0, "-p", plans_name)
    commands += [f"{train} -tr nnUNetTrainerLightMUNet", train]
    return "\n".join(
        [
            *("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows),
            "Estimated memory of a training step: on a GPU under autocast (counted, never measured on one), and on a",
            "CPU with the compiled layers, on top of what the process needs anyway.",
            "",
            escape_terminal(plans.file),
            *(["It also has 3d_cascade_fullres: 3d_fullres after 3d_lowres."] if "3d_lowres" in names else []),
            *([f"Already preprocessed: {', '.join(there)}."] if there else []),
            "",
            "Next (the first training uses our recipe; the second nnU-Net's, with which this network learns slowly):",
            *(f"  {command}" for command in commands),
        ]
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_lightm plan",
        description="Write a plans file that names LightMUNet as the network, so that nnU-Net's own trainers "
        "train it with -p too. Spacing, resampling and normalisation are nnU-Net's; patch and batch size are "
        "planned for LightMUNet's memory. The data set's fingerprint is extracted if it is missing.",
    )
    parser.add_argument("dataset", metavar="DATASET", help="id or name of a data set in nnUNet_raw")
    parser.add_argument(
        "--batch-size",
        type=whole_number(at_least=1),
        metavar="N",
        help="for every configuration (default: at least 2, more if the patch need not shrink)",
    )
    parser.add_argument(
        "--gpu-memory-gb",
        type=finite_number("GB", above=0),
        default=8.0,
        metavar="X",
        help="memory of the GPU; nine tenths of it are planned for (default: %(default)g)",
    )
    parser.add_argument(
        "--plans-name", type=_plans_name, default=PLANS_NAME, metavar="NAME", help="default: %(default)s"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace plans of that name even if they were edited or made by another planner; the old ones are renamed "
        "to kept_NAME.json",
    )
    return parser


def _plans_name(text: str) -> str:
    if text == STOCK_PLANS_NAME:
        raise argparse.ArgumentTypeError(f"{text!r} is the name of nnU-Net's own plans; choose another one")
    if not re.fullmatch(r"[A-Za-z0-9]+(?:[_-][A-Za-z0-9]+)*", text):
        raise argparse.ArgumentTypeError(f"{text!r}; expected letters and digits, with single _ or - in between")
    return text

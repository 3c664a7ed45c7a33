"""The demo's report: table, pictures, and the commands as a script."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...benchmark.report.markdown import code_block
from ...evaluation.folders import evaluate_folder
from ...evaluation.tables import format_markdown, markdown_table
from ...files import write_text
from ...runs.pipeline import Step
from ...runs.progress import format_seconds
from .figures import load_overlay_case, overlay_figure, training_curve
from .steps import DemoSettings, demo_environment

NUM_PICTURED_CASES = 3

_OWN_DATA = """\
# What the demo ran. For your own data, set the three nnUNet_ folders below to yours and run
#   nnUNetv2_lightm convert lits /path/to/LiTS     (or use nnU-Net's raw format)
#   nnUNetv2_plan_and_preprocess -d 801 -c 3d_fullres --verify_dataset_integrity
#   nnUNetv2_train 801 3d_fullres 0 -tr nnUNetTrainerLightMUNet -device cpu
#   nnUNetv2_predict -i IMAGES -o PREDICTIONS -d 801 -c 3d_fullres -f 0 -tr nnUNetTrainerLightMUNet -device cpu
#   nnUNetv2_lightm evaluate PREDICTIONS REFERENCES
# The plans, memory, spacing and trainer below only make the demo small.
"""


def report_files(folder: Path) -> tuple[Path, ...]:
    """The files that `write_report` writes: pictures, training curve, commands and report."""
    return tuple(folder / name for name in ("segmentations.png", "training_curve.png", "commands.sh", "REPORT.md"))


def write_report(settings: DemoSettings, steps: Sequence[Step], seconds: Mapping[str, float]) -> str:
    """Write REPORT.md, commands.sh, segmentations.png and training_curve.png into the demo's folder.

    Args:
        settings: The demo's settings.
        steps: In order.
        seconds: Wall-clock time of each step by name.
    Returns: Tables and where the files are, as Markdown.
    """
    folder = settings.folder
    dataset_json = json.loads((settings.raw_dataset / "dataset.json").read_text(encoding="utf-8"))
    labels, file_ending = dataset_json["labels"], dataset_json["file_ending"]
    references = settings.raw_dataset / "labelsTs"
    evaluation = evaluate_folder(settings.predictions, references, labels, file_ending=file_ending)
    cases = [
        load_overlay_case(
            case,
            settings.raw_dataset / "imagesTs" / f"{case}_0000{file_ending}",
            references / f"{case}{file_ending}",
            settings.predictions / f"{case}{file_ending}",
            labels=labels,
            file_ending=file_ending,
        )
        for case in evaluation.cases[:NUM_PICTURED_CASES]
    ]
    overlay_figure(cases, folder / "segmentations.png", labels=labels)
    training_curve(settings.fold_folder, folder / "training_curve.png", class_names=evaluation.classes)

    script = commands_script(demo_environment(folder), steps)
    write_text(folder / "commands.sh", script)
    times = [["step", "time"], *([name, format_seconds(s)] for name, s in seconds.items())]
    times.append(["**all**", format_seconds(sum(seconds.values()))])
    tables = f"{len(evaluation.cases)} held-out phantoms, {settings.trainer}:\n\n{markdown_table(evaluation)}\n\n"
    tables += format_markdown(times)
    write_text(
        folder / "REPORT.md",
        f"# Demo\n\n{tables}\n\n![Image, ground truth and prediction](segmentations.png)\n\n"
        f"![Training curve](training_curve.png)\n\n{code_block(script.rstrip())}\n",
    )
    listed = zip(("pictures", "training", "commands", "report"), report_files(folder))
    return tables + "\n\n" + "\n".join(f"{what + ':':<10}{path}" for what, path in listed)


def commands_script(environment: Mapping[str, str], steps: Sequence[Step]) -> str:
    """A shell script that runs the same steps without the demo."""
    exports = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    commands = [shlex.join(step.command) for step in steps]
    return "\n".join(["#!/bin/sh", _OWN_DATA, "set -e", *exports, "", *commands, ""])

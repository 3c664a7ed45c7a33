"""Comparisons of trainers as report.md and a self-contained report.html."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...escaping import escape_markdown, escape_name
from ...files import Record, check_output, set_aside, write_text
from ..results import BenchmarkResults
from ..sharing import command_again, without_home
from .contenders import Contender, find_contenders
from .curves import training_curves
from .disagreements import disagreement_figure
from .html_page import html_page
from .markdown import code_block, figure
from .overlays import choose_cases, load_case
from .overview import overview
from .pictures import MADE_BY, Pictures
from .plots import Style, dice_against_seconds, method_styles, score_against_cost, training_plots
from .score_tables import results_tables
from .sections import conditions, cost_table, incomplete_runs, machine, time_to_accuracy_table

AGAIN = "nnUNetv2_lightm benchmark-report RESULTS.json ... -o FOLDER"
PSEUDO_DICE = (
    "Pseudo Dice is nnU-Net's: the Dice of random patches of the validation cases, pooled over an epoch. It follows "
    "the training; it is not the score of whole cases above."
)


def write_report(results: Sequence[BenchmarkResults], folder: Path, title: str) -> None:
    """Write report.md with its pictures in figures/, and report.html with all of it inside.

    A file of an earlier report that was changed since, or whose record is gone, is renamed instead of replaced.

    Args:
        results: Comparisons, one section each.
        folder: Created if it does not exist.
        title: Title of the report.
    Raises:
        ValueError: if there is no comparison.
        EvaluationError: if a segmentation to be pictured cannot be read.
        NotOursError: if the folder holds a report, or figures, that were not written here.
    """
    if not results:
        raise ValueError("write_report needs at least one comparison")
    record = _begin(folder, folder / "figures")
    pictures = Pictures(folder, record)
    styles = method_styles(list(dict.fromkeys(run.trainer for result in results for run in result.runs)))
    parts = [f"# {escape_markdown(title)}"]
    if len(results) > 1:
        parts.append(
            "\n".join(
                f"{i}. [{escape_markdown(result.title)}](#comparison-{i})" for i, result in enumerate(results, start=1)
            )
        )
        parts += filter(None, [overview(results)])
    earlier = _earlier(folder)
    parts += [_section(i, result, styles, pictures, earlier) for i, result in enumerate(results, start=1)]
    parts += [
        "## To repeat this report",
        "From the results.json of each comparison:",
        code_block(AGAIN),
    ]
    markdown = without_home("\n\n".join(parts) + "\n")
    page = html_page(markdown, without_home(title), pictures.read())
    pictures.record()
    for file, text in ((folder / "report.md", markdown), (folder / "report.html", page)):
        _replace(file, text, record)


def _replace(file: Path, text: str, record: Record) -> None:
    """Write a file of the report. What somebody has added to the earlier one stays, under another name."""
    if record.not_ours(file) and file.read_bytes() != text.encode():
        kept = set_aside(file)
        print(
            f"{escape_name(file)} was changed since it was written, or its record is gone; it is now "
            f"{escape_name(kept)}",
            file=sys.stderr,
        )
    write_text(file, text)
    record.add(file)
    record.write(MADE_BY)


def _begin(folder: Path, figures: Path) -> Record:
    """Refuse to replace anything but an earlier report with the figures that it shows; make the folders.

    Returns: What is known of the earlier report's files.
    """
    markdown = folder / "report.md"
    check_output(markdown, ours=lambda text: AGAIN.encode() in text)
    earlier = _earlier(folder)
    check_output(folder / "report.html", ours=lambda text: AGAIN.encode() in text or bool(earlier))
    record = Record.read(figures)
    signed = record is not None
    for file in sorted(figures.glob("comparison[0-9]*.png")):
        check_output(file, ours=lambda text, name=file.name: signed or f"(figures/{name})" in earlier)
    # Signed before the first figure: if this call is killed, the next one must recognise its figures.
    figures.mkdir(parents=True, exist_ok=True)
    record = record or Record(figures)
    record.write(MADE_BY)
    return record


def _earlier(folder: Path) -> str:
    """Text of an earlier report in the folder; empty without one."""
    file = folder / "report.md"
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def _section(
    number: int, results: BenchmarkResults, styles: Mapping[str, Style], pictures: Pictures, earlier: str
) -> str:
    contenders = find_contenders(results)
    prefix = f"figures/comparison{number}"
    parts = [
        f'<a id="comparison-{number}"></a>',
        f"## {escape_markdown(results.title)}",
        conditions(results, contenders),
        incomplete_runs(contenders),
        "### Results",
        results_tables(results, contenders),
        *_cost_figure(results, contenders, styles, pictures, f"{prefix}_score_against_cost.png"),
        "### What it costs",
        cost_table(results, contenders),
        "### Training",
        *_training(results, contenders, styles, pictures, prefix),
        "### The same cases under all methods",
        *_overlays(results, contenders, pictures, prefix, earlier),
        "### Machine and commands",
        machine(results),
        *_commands(results.commands),
    ]
    return "\n\n".join(filter(None, parts))


def _commands(commands: Sequence[Sequence[str]]) -> list[str]:
    """How to repeat the comparison. A command that is not ours is shown, but not offered for pasting."""
    again = [command_again(words) for words in commands]
    parts = [
        f"The results name a command that is not `nnUNetv2_lightm benchmark`: {escape_markdown(' '.join(words))}"
        for words, line in zip(commands, again)
        if line is None
    ]
    lines = "\n".join(filter(None, again))
    return [*parts, "To repeat the comparison:", code_block(lines)] if lines else parts


def _cost_figure(
    results: BenchmarkResults,
    contenders: Sequence[Contender],
    styles: Mapping[str, Style],
    pictures: Pictures,
    path: str,
) -> list[str]:
    axes = score_against_cost(results, contenders, styles, pictures.new(path))
    if not axes:
        return []
    caption = (
        "Average DSC with its 95 % interval against what a method costs (the paper's Figure 1), logarithmic; the area "
        "of a marker is proportional to what the panel's title says, tiny ones are enlarged to be seen. Where the "
        "scores lie far apart, their axis is logarithmic in what they lack to 100 %."
    )
    return [
        figure(path, f"Average DSC of each method against {', '.join(axes)}; the numbers are in the tables", caption)
    ]


def _training(
    results: BenchmarkResults,
    contenders: Sequence[Contender],
    styles: Mapping[str, Style],
    pictures: Pictures,
    prefix: str,
) -> list[str]:
    curves = training_curves(results, contenders)
    if not curves:
        return ["No run has a finished epoch."]
    training_path, dice_path = f"{prefix}_training.png", f"{prefix}_time_to_accuracy.png"
    training_plots(curves, styles, pictures.new(training_path))
    dice_against_seconds(curves, styles, pictures.new(dice_path))
    uncalibrated = [escape_markdown(name) for name, curve in curves.items() if not curve.calibrated]
    seconds = (
        "Seconds are iterations, of training and validation, times the calibrated seconds of one, plus the overhead of "
        "each epoch"
    )
    if uncalibrated:
        seconds += f", but as recorded, with whatever else the machine did, for {', '.join(uncalibrated)}"
    return [
        PSEUDO_DICE,
        figure(
            training_path,
            "Training loss, validation loss and pseudo Dice of each method over the training iterations",
            "Means over the runs of a method.",
        ),
        figure(
            dice_path,
            "Pseudo Dice of each method over the seconds of training; the table below has the numbers",
            f"Time-to-accuracy. {seconds}. Means over the runs; the band is from the lowest to the highest of several.",
        ),
        "Seconds until the mean curve first reaches a pseudo Dice of:",
        time_to_accuracy_table(curves),
    ]


def _overlays(
    results: BenchmarkResults, contenders: Sequence[Contender], pictures: Pictures, prefix: str, earlier: str
) -> list[str]:
    """Pictures of the chosen cases. If the images are gone, keeps an earlier report's picture of the same case and
    scores."""
    if results.not_pictured:
        return [f"Not pictured: {escape_markdown(results.not_pictured)}."]
    parts, missing = [], {}
    for pictured in choose_cases(contenders):
        path = f"{prefix}_overlay_{pictured.rank}.png"
        caption = (
            f"{escape_markdown(pictured.case)}, the {pictured.rank} case by DSC averaged over all methods "
            f"({pictured.mean_dsc:.3f}); that rule alone chose it."
        )
        part = figure(path, f"Disagreements of each method with the ground truth, {pictured.rank} case", caption)
        loaded = load_case(results, contenders, pictured.case)
        if loaded.slices:
            disagreement_figure(loaded.slices, pictures.new(path), labels=results.labels)
        elif part in earlier and pictures.take_over(path):
            parts.append(part)
            continue
        missing.update(loaded.missing)
        if loaded.slices:
            parts.append(part)
    if missing:
        notes = "\n".join(
            f"- {escape_markdown(name)}: {escape_markdown(_without_parents(what, results))}"
            for name, what in missing.items()
        )
        parts.append(f"Not pictured, because something is missing:\n\n{notes}")
    return parts or ["No case is scored by all methods yet."]


def _without_parents(text: str, results: BenchmarkResults) -> str:
    """Shorten folders to their last two names: a report should not reveal where they are on this machine."""
    folders = {folder for run in results.runs for folder in (run.images, run.references, run.predictions) if folder}
    for folder in sorted(folders, key=lambda folder: -len(folder.parts)):
        text = text.replace(str(folder), str(Path("...", *folder.parts[-2:])))
    return text


def pictured_folders(results: Sequence[BenchmarkResults]) -> list[Path]:
    """The folders whose images a report shows."""
    shown = (run.images for result in results if not result.not_pictured for run in result.runs if run.complete)
    return sorted({folder for folder in shown if folder is not None and folder.is_dir()})

"""RESULTS.md from the result files."""

from __future__ import annotations

from collections.abc import Sequence

from nnunetv2_lightm.evaluation.tables import format_markdown
from nnunetv2_lightm.measure.timing import Spread

from .goals import GOALS
from .results import Row

Group = dict  # a result file's content

HOW_TO_READ = """\
For time, the ratio is theirs divided by ours; for memory, for the growth of the cost, for the optimizer's part of a
step and against the exps alone it is ours divided by theirs. The networks run with batch 1, 1 channel, 3 classes,
without deep supervision, unless the row says otherwise. A training step is forward, nnU-Net's loss, backward, clipping
and nnU-Net's SGD or, where the row says so, each network's own optimizer. Memory is the peak RSS during the work minus
the RSS before it."""

PEAKS = """\
This machine's peaks in the same run, float32: {matmul_gflops} GFLOP/s (large matrix product), {convolution_gflops}
GFLOP/s (large 3x3x3 convolution), {copy_gbytes_per_s} GB/s (large copy, read and written). GFLOP counts the linear
layers and convolutions alone; on top of that a scan's state update, one for each token, channel and state, needs an exp
and some multiplications. GB is a stage's inputs and outputs, each of which has to move at least once."""


def results_markdown(groups: Sequence[Group], plot_name: str) -> str:
    """The whole of RESULTS.md.

    Args:
        groups: The result files, in order.
        plot_name: The picture, in the same folder.
    """
    rows = [Row.from_json(row) for group in groups for row in group["rows"]]
    quick = any(group["quick"] for group in groups)
    parts = [
        "# Benchmarks",
        "Written by `make bench`. Every figure is a median, with its quartiles in brackets; the candidates take turns.",
        "**A quick run, only to check that the benchmark works: these are no results.**" if quick else "",
        provenance(groups),
        "## Goals",
        goals_table(rows),
        HOW_TO_READ,
        f"![LightMUNet compared with nnU-Net's network]({plot_name})",
        "What ran on our side:",
        "\n".join(f"- {name}" for name in dict.fromkeys(row.ours_name for row in rows)),
        "## Without a goal",
        rows_table([row for row in rows if row.name not in GOALS]),
        profile(groups),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def provenance(groups: Sequence[Group]) -> str:
    """Machine and versions, once for all groups that share them, and the variables that affect speed."""
    shared: dict[str, list[str]] = {}
    for group in groups:
        facts = {**group["machine"], "PyTorch's threads": group["threads"]}
        text = "\n".join(f"- {key}: {value}" for key, value in facts.items())
        shared.setdefault(text, []).append(f"{group['group']} ({group['date']}, {group['seconds']} s)")
    parts = [f"{', '.join(names)}:\n\n{text}" for text, names in shared.items()]
    for group in groups:
        variables = " ".join(f"{key}={value}" for key, value in group["environment"].items())
        parts += [f"{group['group']} ran with `{variables}`."] if variables else []
    return "\n\n".join(parts)


def goals_table(rows: Sequence[Row]) -> str:
    """Every goal in the order of ``GOALS``, measured or not."""
    by_name = {row.name: row for row in rows}
    table = [["work", "baseline", "ours", "theirs", "ratio", "goal", "met"]]
    for name, goal in GOALS.items():
        row = by_name.get(name)
        cells = [name, "", "not run", "", ""] if row is None else _cells(row)
        met = None if row is None else row.met
        table.append([*cells, str(goal), {True: "yes", False: "**no**", None: "-"}[met]])
    return format_markdown(table)


def rows_table(rows: Sequence[Row]) -> str:
    return format_markdown([["work", "baseline", "ours", "theirs", "ratio"], *(_cells(row) for row in rows)])


def _cells(row: Row) -> list[str]:
    if row.ratio is None:
        return [row.work, row.baseline_name, row.not_measured or "not measured", "", ""]
    return [
        row.work,
        row.baseline_name,
        *(spread_text(s, row.unit) for s in (row.ours, row.baseline)),
        f"{row.ratio:.3g}x",
    ]


def spread_text(spread: Spread, unit: str) -> str:
    """Median, quartiles and number of samples, in a unit that suits the median."""
    factor, unit = (1e3, "ms") if unit == "s" and spread.median < 1 else (1, unit)
    median, q1, q3 = (number(value * factor) for value in (spread.median, spread.q1, spread.q3))
    return f"{median} {unit} ({q1} - {q3}; n = {spread.samples})"


def number(value: float) -> str:
    """Three significant digits, never with an exponent."""
    if value == 0:
        return "0"
    return f"{value:.0f}" if abs(value) >= 100 else f"{float(f'{value:.3g}'):.10f}".rstrip("0").rstrip(".")


def profile(groups: Sequence[Group]) -> str:
    """The further tables of all groups, after the machine's peaks."""
    parts = ["## Where the time goes"]
    for group in groups:
        if "peaks" in group:
            peaks = {name: Spread(**spread) for name, spread in group["peaks"].items()}
            parts.append(PEAKS.format(**{name: number(spread.median) for name, spread in peaks.items()}))
        for title, records in group["tables"].items():
            parts += [f"### {title}", records_table(records)]
    return "\n\n".join(parts) if len(parts) > 1 else ""


def records_table(records: Sequence[dict]) -> str:
    """Records as rows; a key that a record lacks, or a zero, is a dash."""
    columns = list(dict.fromkeys(key for record in records for key in record))
    cells = [[_cell(column, record.get(column)) for column in columns] for record in records]
    return format_markdown([columns, *cells])


def _cell(column: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if value is None or value == 0:
        return "-"
    if isinstance(value, float):
        return f"{value:.1%}" if column == "share" else number(value)
    return str(value)

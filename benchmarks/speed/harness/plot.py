"""The benchmarks in one picture: LightMUNet as a fraction of nnU-Net's network, and how much faster the scan is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from nnunetv2_lightm.files import whole_file

from .goals import GOALS
from .results import SPEED, Row

# Okabe and Ito's palette, which colour-blind readers can tell apart; they differ in lightness too.
TIME_COLOR, MEMORY_COLOR, GOAL_COLOR = "#0072B2", "#E69F00", "#000000"
NETWORK_ROWS = (
    "forward_3d_64",
    "forward_3d_128",
    "forward_2d_512",
    "training_3d_64",
    "training_2d_512",
    "memory_forward_3d_64",
    "memory_forward_3d_128",
    "memory_training_3d_64",
    "memory_training_2d_512",
)
SCAN_ROWS = ("scan_forward_reference_loop", "scan_forward_mamba_py", "scan_training_mamba_py")


def draw(rows: Sequence[Row], path: Path) -> bool:
    """Write the picture. Returns: False, and nothing is written, if no row of it was measured."""
    measured = {row.name: row for row in rows if row.ratio is not None}
    networks = [measured[name] for name in NETWORK_ROWS if name in measured]
    scans = [measured[name] for name in SCAN_ROWS if name in measured]
    if not networks and not scans:
        return False
    panels = [part for part in (networks, scans) if part]
    heights = [len(part) + 1.2 for part in panels]
    figure = Figure((9, 0.42 * sum(heights) + 0.8), dpi=150, layout="constrained", facecolor="white")
    axes = figure.subplots(len(panels), squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axis, part in zip(axes, panels, strict=True):
        draw_networks(axis, part) if part is networks else draw_scans(axis, part)
    handles = [
        Patch(color=TIME_COLOR, label="time"),
        Patch(color=MEMORY_COLOR, label="transient memory"),
        Line2D([], [], color=GOAL_COLOR, marker="|", markersize=12, markeredgewidth=2, linestyle="", label="goal"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    with whole_file(path) as partial:
        figure.savefig(partial)
    return True


def draw_networks(axes: Axes, rows: Sequence[Row]) -> None:
    """Each bar is ours divided by nnU-Net's; 1 is nnU-Net."""
    for y, row in enumerate(rows):
        fraction = row.ours.median / row.baseline.median
        axes.barh(y, fraction, color=TIME_COLOR if row.kind == SPEED else MEMORY_COLOR, height=0.62)
        goal = GOALS[row.name]
        _goal_mark(axes, y, 1 / goal.bound if row.kind == SPEED else goal.bound)
        times = (
            f"{1 / fraction:.1f}x {'faster' if row.kind == SPEED else 'less'}" if fraction < 1 else f"{fraction:.1f}x"
        )
        _annotate(axes, y, f"{_amounts(row)}: {times}")
    axes.axvline(1, color="0.6", linewidth=1, zorder=0)
    axes.set_yticks(range(len(rows)), [_short(row.work) for row in rows])
    axes.set_xlim(0, max(1.1, *(1.05 * row.ours.median / row.baseline.median for row in rows)))
    axes.set_title("LightMUNet as a fraction of nnU-Net's PlainConvUNet (= 1), less is better", loc="left", fontsize=10)
    _tidy(axes)


def draw_scans(axes: Axes, rows: Sequence[Row]) -> None:
    """Each bar is the baseline's time divided by ours, on a logarithmic axis."""
    for y, row in enumerate(rows):
        axes.barh(y, row.ratio, color=TIME_COLOR, height=0.62)
        _goal_mark(axes, y, GOALS[row.name].bound)
        _annotate(axes, y, f"{_amounts(row)}: {row.ratio:.0f}x faster")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlim(1, 2 * max(max(row.ratio, GOALS[row.name].bound) for row in rows))
    labels = {
        "scan_forward_reference_loop": "forward, Mamba's reference loop",
        "scan_forward_mamba_py": "forward, mamba.py",
        "scan_training_mamba_py": "forward + backward, mamba.py",
    }
    axes.set_yticks(range(len(rows)), [labels[row.name] for row in rows])
    axes.set_title("Selective scan: times faster than the baseline, more is better", loc="left", fontsize=10)
    _tidy(axes)


def _goal_mark(axes: Axes, y: float, x: float) -> None:
    axes.plot([x, x], [y - 0.4, y + 0.4], color=GOAL_COLOR, linewidth=2)


def _annotate(axes: Axes, y: float, text: str) -> None:
    axes.text(1.03, y, text, va="center", transform=axes.get_yaxis_transform())


def _amounts(row: Row) -> str:
    return f"{_amount(row.ours.median, row.unit)} vs. {_amount(row.baseline.median, row.unit)}"


def _tidy(axes: Axes) -> None:
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _short(work: str) -> str:
    return work.removeprefix("transient memory, ").removeprefix("network ")


def _amount(value: float, unit: str) -> str:
    if unit == "s" and value < 1:
        return f"{value * 1e3:.3g} ms"
    return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"

"""Plots of a comparison: score against size and time (the paper's Figure 1), and the course of the trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from ...escaping import escape_mathtext
from ..results import BenchmarkResults
from .contenders import Contender, short_name
from .curves import Curve
from .figures import save_figure

# Okabe and Ito's palette with black and without yellow, which is hard to see as a line on white.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# The numbers of colours, dashes and markers have no common factor: the first 28 methods all look different.
_DASHES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
# One column, so that the text stays legible on a phone.
_WIDTH_INCHES, _PANEL_INCHES, _DPI = 6.0, 3.1, 150
_NUM_MARKERS = 8
# Candidate ticks of the score axis, in per cent.
_SCORE_TICKS = (0, 40, 60, 80, 90, 95, 98, 99, 99.5, 100)
# Just above 100 %, because a logarithmic axis cannot show a distance of 0; the factor from which such an axis is used.
_TOP, _SEVERAL = 100.1, 4


@dataclass(frozen=True)
class Style:
    """How a method is drawn in every plot of a report."""

    color: str
    dashes: str
    marker: str


def method_styles(trainers: Sequence[str]) -> dict[str, Style]:
    """Method name to style, for all trainers of a report."""
    return {
        short_name(trainer): Style(_COLORS[i % len(_COLORS)], _DASHES[i % len(_DASHES)], _MARKERS[i % len(_MARKERS)])
        for i, trainer in enumerate(trainers)
    }


@dataclass(frozen=True)
class _Axis:
    label: str
    values: Mapping[str, float | None]


def score_against_cost(
    results: BenchmarkResults, contenders: Sequence[Contender], styles: Mapping[str, Style], output_png: Path
) -> list[str]:
    """Draw average DSC against whichever are known of parameters, seconds per training iteration and per forward pass.

    A marker's area shows the seconds per training iteration if the axis is parameters, otherwise the parameters.

    Returns: Labels of the axes that were drawn; nothing is written if there is none.
    """
    scored = [contender for contender in contenders if contender.evaluation]
    parameters, training, forward = _costs(results, scored)
    panels = [(parameters, training), (training, parameters), (forward, parameters)]
    drawn = [(x, size) for x, size in panels if any(value is not None for value in x.values.values())]
    if not drawn:
        return []
    figure, grid = _panels(len(drawn), [contender.name for contender in scored], styles, lines=False)
    for axes, (x, size) in zip(grid, drawn, strict=True):
        areas = _areas(size.values)
        for contender in scored:
            if x.values[contender.name] is None:
                continue
            average = 100 * contender.evaluation.average("DSC")
            low, high = 100 * contender.evaluation.average_interval("DSC")
            style = styles[contender.name]
            if not np.isnan(low):
                axes.plot([x.values[contender.name]] * 2, [low, high], color=style.color, linewidth=1)
            axes.scatter(
                x.values[contender.name],
                average,
                s=areas[contender.name],
                color=style.color,
                marker=style.marker,
                alpha=0.8,
            )
        axes.set(xscale="log", xlabel=x.label, ylabel="average DSC, %", title=f"marker area: {size.label}")
        axes.margins(0.15)
        _spread_scores(axes, [100 * contender.evaluation.average("DSC") for contender in scored])
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    save_figure(figure, output_png)
    return [x.label for x, _ in drawn]


def training_plots(curves: Mapping[str, Curve], styles: Mapping[str, Style], output_png: Path) -> None:
    """Draw training loss, validation loss and pseudo Dice over the iterations."""
    figure, grid = _panels(3, list(curves), styles)
    titles = ("training loss", "validation loss", "pseudo Dice, mean of the foreground classes")
    for axes, field, title in zip(grid, ("train_loss", "val_loss", "pseudo_dice"), titles, strict=True):
        for name, curve in curves.items():
            _draw_line(axes, curve.iterations, getattr(curve, field), styles[name])
        axes.set(xlabel="training iterations", title=title)
    grid[-1].set_ylim(-0.02, 1.02)
    save_figure(figure, output_png)


def dice_against_seconds(curves: Mapping[str, Curve], styles: Mapping[str, Style], output_png: Path) -> None:
    """Draw pseudo Dice over the seconds of training; a band from the lowest to the highest of several runs."""
    figure, (axes,) = _panels(1, list(curves), styles, panel_inches=4.2)
    for name, curve in curves.items():
        _draw_line(axes, curve.seconds, curve.pseudo_dice, styles[name])
        if curve.num_runs > 1:
            axes.fill_between(curve.seconds, curve.lowest, curve.highest, color=styles[name].color, alpha=0.15, lw=0)
    axes.set(xlabel="seconds of training", ylabel="pseudo Dice, mean of the foreground", ylim=(-0.02, 1.02))
    axes.set_xlim(left=0)
    save_figure(figure, output_png)


def _costs(results: BenchmarkResults, scored: Sequence[Contender]) -> tuple[_Axis, _Axis, _Axis]:
    def values(table: Mapping[str, Mapping[str, float | None]], key: str, unit: float = 1.0) -> dict:
        by_name = {contender.name: table.get(contender.trainer, {}).get(key) for contender in scored}
        return {name: None if value is None else value / unit for name, value in by_name.items()}

    return (
        _Axis("parameters, M", values(results.complexity, "parameters", 1e6)),
        _Axis("s per training iteration", values(results.calibration, "train_seconds")),
        _Axis("s per forward pass of a patch", values(results.complexity, "forward_seconds")),
    )


def _spread_scores(axes: Axes, scores: Sequence[float]) -> None:
    """Make the axis of scores logarithmic in the distance to 100 % if that differs several times between methods: one
    that fails would otherwise squeeze all others into one line."""
    lacking = [_TOP - score for score in scores if not np.isnan(score)]
    if not lacking or max(lacking) <= _SEVERAL * min(lacking):
        return
    low, high = min(lacking) / 1.5, max(lacking) * 1.5
    axes.set_yscale(
        "function",
        functions=(lambda y: -np.log10(np.maximum(_TOP - y, low / 10)), lambda t: _TOP - 10.0 ** -np.asarray(t)),
    )
    axes.set_ylim(_TOP - high, _TOP - low)
    axes.set_yticks([tick for tick in _SCORE_TICKS if low < _TOP - tick < high])
    axes.yaxis.set_major_formatter("{x:g}")


def _areas(values: Mapping[str, float | None]) -> dict[str, float]:
    """Marker areas in points squared, proportional to the values but large enough to see; small for unknown values."""
    largest = max((value for value in values.values() if value is not None), default=1.0) or 1.0
    return {name: 25.0 if value is None else max(25.0, 400.0 * value / largest) for name, value in values.items()}


def _panels(
    count: int,
    names: Sequence[str],
    styles: Mapping[str, Style],
    *,
    lines: bool = True,
    panel_inches: float = _PANEL_INCHES,
) -> tuple[Figure, Sequence]:
    """Panels one below the other with one legend under them."""
    columns = 2
    legend_inches = 0.22 * -(-len(names) // columns) + 0.2
    figure = Figure((_WIDTH_INCHES, count * panel_inches + legend_inches), dpi=_DPI, layout="constrained")
    grid = figure.subplots(count, 1, squeeze=False)[:, 0]
    for axes in grid:
        axes.grid(alpha=0.3)
    handles = [
        Line2D(
            [],
            [],
            color=styles[name].color,
            linestyle=styles[name].dashes if lines else "none",
            marker=styles[name].marker,
            label=escape_mathtext(name),
        )
        for name in names
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, handlelength=3.5)
    return figure, grid


def _draw_line(axes, x: np.ndarray, y: np.ndarray, style: Style) -> None:
    every = max(1, len(x) // _NUM_MARKERS)
    axes.plot(x, y, color=style.color, linestyle=style.dashes, marker=style.marker, markevery=every, markersize=5)

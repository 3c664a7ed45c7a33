"""One case under all methods (the paper's Figure 3): where each prediction differs from the ground truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ...escaping import escape_mathtext
from ...evaluation.scores import class_mask, foreground_classes, score_case
from .figures import OverlayCase, best_slice, class_color, draw_classes, intensity_window, save_figure, take_slice

# Okabe and Ito's blue, vermilion and yellow: the colours that classes get last.
MISSED, SURPLUS, CONFUSED = "#0072B2", "#D55E00", "#F0E442"
_MEANINGS = {MISSED: "missed (false negative)", SURPLUS: "surplus (false positive)", CONFUSED: "wrong class"}
_OUTLINE = "#FFFFFF"
_WIDTH_INCHES, _COLUMNS, _TITLE_INCHES = 6.5, 3, 0.52
_MAX_CLASSES_IN_LEGEND = 12


def disagreement_figure(
    predictions: Mapping[str, OverlayCase], output_png: Path, *, labels: Mapping[str, int | list[int]]
) -> None:
    """Draw one slice: the image, the ground truth, and each method's disagreements with it.

    It is the slice with the most foreground in the ground truth or, if that is empty, in the predictions. The DSC in
    the titles is the mean over the classes of the whole case.

    Args:
        predictions: Method name to the case with its prediction; image and reference are the same in all.
        output_png: File to write.
        labels: dataset.json's `labels`.
    Raises: ValueError: if there is no prediction, or arrays have different shapes.
    """
    if not predictions:
        raise ValueError("disagreement_figure needs at least one prediction")
    classes, ignored = foreground_classes(labels)
    cases = list(predictions.values())
    together = replace(cases[0], prediction=np.maximum.reduce([case.prediction for case in cases]))
    index = best_slice(together, classes)
    window = intensity_window(take_slice(together, index))
    sections = {name: take_slice(case, index) for name, case in predictions.items()}
    first = next(iter(sections.values()))
    shown = {name: values for name, values in classes.items() if class_mask(first.reference, values).any()}
    handles = _legend(classes, shown)

    height, width = first.image.shape
    aspect = first.spacing_mm[1] / first.spacing_mm[2]
    rows = -(-(len(sections) + 2) // _COLUMNS)
    row_inches = _WIDTH_INCHES / _COLUMNS * height * aspect / width + _TITLE_INCHES
    size = (_WIDTH_INCHES, rows * row_inches + 0.23 * -(-len(handles) // 2) + 0.15)
    figure = Figure(size, dpi=150, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.06, wspace=0, hspace=0)
    grid = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes in grid[: len(sections) + 2]:
        axes.imshow(first.image, cmap="gray", vmin=window[0], vmax=window[1], aspect=aspect, interpolation="nearest")
    _title(grid[0], first.case.replace(", slice", "\nslice"))
    _title(grid[1], "ground truth")
    draw_classes(grid[1], first.reference, classes, aspect)
    for axes, (name, section) in zip(grid[2:], sections.items(), strict=False):
        _draw_disagreements(axes, section, classes, ignored, aspect)
        dsc = section.mean_dsc
        if dsc is None:
            dsc = mean_dsc(predictions[name].prediction, predictions[name].reference, classes, ignored)
        _title(axes, name if np.isnan(dsc) else f"{name}\nDSC {dsc:.3f}")
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    save_figure(figure, output_png)


def mean_dsc(
    prediction: np.ndarray, reference: np.ndarray, classes: Mapping[str, tuple[int, ...]], ignored: int | None
) -> float:
    """Mean DSC over the classes that count in the whole case; NaN if none does."""
    scores = score_case(prediction, reference, classes, ignored)[0]
    counted = scores[~np.isnan(scores)]
    return float(counted.mean()) if counted.size else float("nan")


def _draw_disagreements(
    axes: Axes, section: OverlayCase, classes: Mapping[str, tuple[int, ...]], ignored: int | None, aspect: float
) -> None:
    reference, prediction = section.reference, section.prediction
    counted = np.ones(reference.shape, bool) if ignored is None else reference != ignored
    masks = {
        MISSED: counted & (reference != 0) & (prediction == 0),
        SURPLUS: counted & (reference == 0) & (prediction != 0),
        CONFUSED: counted & (reference != 0) & (prediction != 0) & (reference != prediction),
    }
    for color, mask in masks.items():
        overlay = np.zeros((*mask.shape, 4))
        overlay[mask] = (*to_rgb(color), 0.9)
        axes.imshow(overlay, aspect=aspect, interpolation="nearest")
    for values in classes.values():
        mask = class_mask(reference, values)
        if mask.any() and not mask.all():
            axes.contour(mask, levels=[0.5], colors=[_OUTLINE], linewidths=0.7)


def _legend(classes: Mapping[str, tuple[int, ...]], shown: Mapping[str, tuple[int, ...]]) -> list:
    """The disagreements, and the classes of the ground truth in this slice unless they are too many to tell apart."""
    handles = [Patch(color=color, label=meaning) for color, meaning in _MEANINGS.items()]
    outline = Line2D([], [], color="#888888", label="outline: ground truth")
    if len(shown) > _MAX_CLASSES_IN_LEGEND:
        return [*handles, outline]
    order = list(classes)
    return [
        *handles,
        outline,
        *(
            Patch(color=class_color(order.index(name)), label=escape_mathtext(f"ground truth: {name}"))
            for name in shown
        ),
    ]


def _title(axes: Axes, text: str) -> None:
    axes.set_title(escape_mathtext(text), fontsize=9)

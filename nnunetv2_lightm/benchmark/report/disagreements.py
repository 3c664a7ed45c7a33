"""One case under all methods (the paper's Figure 3): where each prediction differs from the ground truth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ...escaping import escape_mathtext
from ...evaluation.scores import class_mask, foreground_classes
from .case_slices import CaseSlice
from .figures import class_color, draw_classes, intensity_window, save_figure

# Okabe and Ito's blue, vermilion and yellow: the colours that classes get last.
MISSED, SURPLUS, CONFUSED = "#0072B2", "#D55E00", "#F0E442"
_MEANINGS = {MISSED: "missed (false negative)", SURPLUS: "surplus (false positive)", CONFUSED: "wrong class"}
_OUTLINE = "#FFFFFF"
_WIDTH_INCHES, _COLUMNS, _TITLE_INCHES = 6.5, 3, 0.52
_MAX_CLASSES_IN_LEGEND = 12


def disagreement_figure(
    slices: Mapping[str, CaseSlice], output_png: Path, *, labels: Mapping[str, int | list[int]]
) -> None:
    """Draw one slice: the image, the ground truth, and each method's disagreements with it.

    Args:
        slices: Method name to its slice; image and reference are the same in all.
        output_png: File to write.
        labels: dataset.json's `labels`.
    Raises: ValueError: if there is no slice.
    """
    if not slices:
        raise ValueError("disagreement_figure needs at least one slice")
    classes, ignored = foreground_classes(labels)
    first = next(iter(slices.values()))
    foreground = np.any([first.reference > 0, *(section.prediction > 0 for section in slices.values())], axis=0)
    low, high = intensity_window(first.image, foreground)
    shown = {name: values for name, values in classes.items() if class_mask(first.reference, values).any()}
    handles = _legend(classes, shown)

    height, width = first.image.shape
    aspect = first.spacing_mm[0] / first.spacing_mm[1]
    rows = -(-(len(slices) + 2) // _COLUMNS)
    row_inches = _WIDTH_INCHES / _COLUMNS * height * aspect / width + _TITLE_INCHES
    size = (_WIDTH_INCHES, rows * row_inches + 0.23 * -(-len(handles) // 2) + 0.15)
    figure = Figure(size, dpi=150, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.06, wspace=0, hspace=0)
    grid = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes in grid[: len(slices) + 2]:
        axes.imshow(first.image, cmap="gray", vmin=low, vmax=high, aspect=aspect, interpolation="nearest")
    _title(grid[0], first.name.replace(", slice", "\nslice"))
    _title(grid[1], "ground truth")
    draw_classes(grid[1], first.reference, classes, aspect)
    for axes, (name, section) in zip(grid[2:], slices.items(), strict=False):
        _draw_disagreements(axes, section, classes, ignored, aspect)
        _title(axes, name if np.isnan(section.mean_dsc) else f"{name}\nDSC {section.mean_dsc:.3f}")
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    save_figure(figure, output_png)


def _draw_disagreements(
    axes: Axes, section: CaseSlice, classes: Mapping[str, tuple[int, ...]], ignored: int | None, aspect: float
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

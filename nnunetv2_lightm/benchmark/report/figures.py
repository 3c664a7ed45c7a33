"""What figures of segmentations share: the slice to show, its window of intensities, and the classes' colours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from scipy.ndimage import binary_dilation

from ...evaluation.scores import class_mask
from ...files import whole_file

# Okabe and Ito's palette, which colour-blind readers can tell apart, without the black.
COLORS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00", "#0072B2")


def class_color(i: int) -> str:
    """Colour of the class with this place in dataset.json's labels."""
    return COLORS[i % len(COLORS)]


def slice_with_most(segmentation: np.ndarray, classes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Index of the slice of a volume with the most foreground, each class measured by its own largest area."""
    areas = np.array([class_mask(segmentation, values).sum(axis=(1, 2)) for values in classes.values()])
    if not areas.any():
        return None
    return int((areas / np.maximum(areas.max(axis=1, keepdims=True), 1)).sum(axis=0).argmax())


def slice_name(case: str, index: int, depth: int) -> str:
    """The name of a slice: its case and, in a volume, its number."""
    return case if depth == 1 else f"{case}, slice {index + 1} of {depth}"


def intensity_window(image: np.ndarray, foreground: np.ndarray) -> tuple[float, float]:
    """Intensities to show as black and white: twice the range in and around the foreground, where contrast matters.

    Args:
        image: A slice.
        foreground: Mask of the same shape; if it is empty, the whole slice counts.
    """
    around = binary_dilation(foreground, iterations=max(2, min(foreground.shape) // 20))
    low, high = np.percentile(image[around] if foreground.any() else image, (5, 95))
    margin = max((high - low) / 2, 1e-6)
    return float(low - margin), float(high + margin)


def draw_classes(axes: Axes, labels: np.ndarray, classes: Mapping[str, tuple[int, ...]], aspect: float) -> None:
    """Tint and outline each class of a slice in its colour."""
    for i, values in enumerate(classes.values()):
        mask = class_mask(labels, values)
        if not mask.any():
            continue
        overlay = np.zeros((*mask.shape, 4))
        overlay[mask] = (*to_rgb(class_color(i)), 0.35)
        axes.imshow(overlay, aspect=aspect, interpolation="nearest")
        axes.contour(mask, levels=[0.5], colors=[class_color(i)], linewidths=1.2)


def save_figure(figure: Figure, output_png: Path) -> None:
    """Write a PNG in one step."""
    with whole_file(output_png) as partial:
        figure.savefig(partial, format="png")

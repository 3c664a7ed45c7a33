"""The demo's figures: segmentations next to the image and the ground truth, and the training curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ...benchmark.report.figures import (
    class_color,
    draw_classes,
    intensity_window,
    save_figure,
    slice_name,
    slice_with_most,
)
from ...benchmark.report.volumes import CaseReader, require_same_shape
from ...escaping import escape_mathtext
from ...evaluation.scores import foreground_classes, score_case
from ...runs.training_log import read_training_log

_TRAIN_COLOR, _VAL_COLOR = "#0072B2", "#D55E00"


@dataclass(frozen=True)
class OverlayCase:
    """A case to draw: arrays (z, y, x), or (y, x), on one grid.

    Attributes:
        case: Name.
        image: Intensities.
        reference: Label values of the ground truth.
        prediction: Label values.
        spacing_mm: (z, y, x); only y and x matter, as the aspect of the picture.
    """

    case: str
    image: np.ndarray
    reference: np.ndarray
    prediction: np.ndarray
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)


def load_overlay_case(
    case: str,
    image_file: Path,
    reference_file: Path,
    prediction_file: Path,
    *,
    labels: Mapping[str, int | list[int]],
    file_ending: str,
    reader: str | None = None,
) -> OverlayCase:
    """Read a case as nnU-Net does; volumes are turned so that the slices are axial, with the front of the body up.

    Args:
        case: Name.
        image_file: One channel of the image.
        reference_file: Ground truth.
        prediction_file: Prediction.
        labels: dataset.json's `labels`.
        file_ending: dataset.json's `file_ending`.
        reader: dataset.json's `overwrite_image_reader_writer`, if it has one.
    Raises: EvaluationError: if a file cannot be read or is on another grid.
    """
    reader = CaseReader(reference_file, labels=labels, file_ending=file_ending, reader=reader)
    reference, prediction = (reader.labels(file) for file in (reference_file, prediction_file))
    image = reader.image(image_file)
    for file, volume in ((reference_file, reference), (prediction_file, prediction)):
        require_same_shape(file, volume, image_file, image)
    return OverlayCase(case, image.voxels, reference.voxels, prediction.voxels, image.spacing_mm)


def overlay_figure(
    cases: Sequence[OverlayCase], output_png: Path, *, labels: Mapping[str, int | list[int]], width_inches: float = 9.0
) -> None:
    """Draw a row for each case: the image, the ground truth on it, the prediction on it.

    A volume is shown by its slice with the most foreground in the ground truth or, if that is empty, in the
    prediction; each class is measured by its own largest area, so that small ones are seen too. The DSC in the titles
    is that of the whole case.

    Args:
        cases: What to draw, from top to bottom.
        output_png: File to write.
        labels: dataset.json's `labels`; names and order give the legend.
        width_inches: Width of the figure, at 150 pixels an inch.
    Raises:
        ValueError: if there is no case, or the arrays of a case have different shapes.
    """
    if not cases:
        raise ValueError("overlay_figure needs at least one case")
    classes, ignored = foreground_classes(labels)
    slices = [_take_slice(case, _best_slice(case, classes)) for case in cases]
    column = width_inches / 3
    heights = [column * s.image.shape[0] * s.spacing_mm[1] / (s.image.shape[1] * s.spacing_mm[2]) for s in slices]
    title, legend = 0.25, 0.35
    figure = Figure((width_inches, sum(heights) + title * len(cases) + legend), dpi=150, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.04, wspace=0, hspace=0)
    grid = figure.subplots(len(cases), 3, squeeze=False, gridspec_kw={"height_ratios": heights})
    for row, (case, section) in enumerate(zip(cases, slices, strict=True)):
        aspect = section.spacing_mm[1] / section.spacing_mm[2]
        low, high = intensity_window(section.image, (section.reference > 0) | (section.prediction > 0))
        for axes in grid[row]:
            axes.imshow(section.image, cmap="gray", vmin=low, vmax=high, aspect=aspect, interpolation="nearest")
            axes.set_axis_off()
        draw_classes(grid[row, 1], section.reference, classes, aspect)
        draw_classes(grid[row, 2], section.prediction, classes, aspect)
        dsc = score_case(case.prediction, case.reference, classes, ignored)[0]
        scores = ", ".join(
            f"{escape_mathtext(name)} {score:.3f}"
            for name, score in zip(classes, dsc, strict=True)
            if not np.isnan(score)
        )
        grid[row, 0].set_title(escape_mathtext(section.case), fontsize=9)
        grid[row, 1].set_title("ground truth", fontsize=9)
        grid[row, 2].set_title(f"prediction: DSC {scores}" if scores else "prediction", fontsize=9)
    figure.legend(
        handles=[Patch(color=class_color(i), label=escape_mathtext(name)) for i, name in enumerate(classes)],
        loc="outside lower center",
        ncols=min(len(classes), 6),
        frameon=False,
        fontsize=9,
    )
    save_figure(figure, output_png)


def training_curve(training_log: Path, output_png: Path, *, class_names: Sequence[str] = ()) -> None:
    """Draw losses and pseudo Dice over the epochs, with the training time along the top.

    Args:
        training_log: Folder of a fold, or one of its `training_log_*.txt`.
        output_png: File to write.
        class_names: Names of the foreground classes, in the order of dataset.json's `labels`.
    Raises:
        FileNotFoundError: if there is no log.
        ValueError: if no epoch was finished.
    """
    records = read_training_log(training_log)
    epochs = np.array([record.epoch + 1 for record in records])
    minutes = np.cumsum([record.seconds for record in records]) / 60
    figure = Figure((9, 3.8), dpi=150, layout="constrained")
    losses, dice = figure.subplots(1, 2)

    losses.plot(epochs, [record.train_loss for record in records], ".-", color=_TRAIN_COLOR, label="training")
    losses.plot(epochs, [record.val_loss for record in records], ".-", color=_VAL_COLOR, label="validation")
    losses.set(xlabel="epoch", ylabel="loss", title="loss (lower is better)")

    num_classes = max(len(record.pseudo_dice) for record in records)
    per_class = np.full((len(records), num_classes), np.nan)
    for row, record in zip(per_class, records, strict=True):
        row[: len(record.pseudo_dice)] = record.pseudo_dice
    names = [*class_names, *(f"class {i + 1}" for i in range(len(class_names), num_classes))]
    for i in range(num_classes):
        dice.plot(epochs, per_class[:, i], ".-", color=class_color(i), label=escape_mathtext(names[i]))
    dice.set(xlabel="epoch", ylabel="pseudo Dice", ylim=(-0.02, 1.02), title="pseudo Dice on validation patches")

    for axes in (losses, dice):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        axes.xaxis.get_major_locator().set_params(integer=True)
        _add_time_axis(axes, epochs, minutes)
    save_figure(figure, output_png)


def _best_slice(case: OverlayCase, classes: Mapping[str, tuple[int, ...]]) -> int:
    """Index of the slice that shows the most; 0 for an image.

    Raises: ValueError: if the arrays have different shapes.
    """
    if not case.image.shape == case.reference.shape == case.prediction.shape or case.image.ndim not in (2, 3):
        raise ValueError(
            f"case {case.case}: image {case.image.shape}, reference {case.reference.shape} and prediction "
            f"{case.prediction.shape} must have one shape, (z, y, x) or (y, x)"
        )
    if case.image.ndim == 2:
        return 0
    for segmentation in (case.reference, case.prediction):
        index = slice_with_most(segmentation, classes)
        if index is not None:
            return index
    return case.image.shape[0] // 2


def _take_slice(case: OverlayCase, index: int) -> OverlayCase:
    """Reduce a volume to one slice, and say which in its name; an image stays as it is."""
    if case.image.ndim == 2:
        return case
    name = slice_name(case.case, index, case.image.shape[0])
    return replace(
        case, case=name, image=case.image[index], reference=case.reference[index], prediction=case.prediction[index]
    )


def _add_time_axis(axes: Axes, epochs: np.ndarray, minutes: np.ndarray) -> None:
    # The time of an epoch's end; linear in between, and the first epoch begins at 0.
    known_epochs, known_minutes = np.append(epochs[0] - 1, epochs), np.append(0.0, minutes)
    rate = max(minutes[-1] / (epochs[-1] - epochs[0] + 1), 1e-9)

    def to_minutes(epoch):
        inside = np.interp(epoch, known_epochs, known_minutes)
        return inside + rate * (np.minimum(epoch - known_epochs[0], 0) + np.maximum(epoch - known_epochs[-1], 0))

    def to_epochs(minute):
        inside = np.interp(minute, known_minutes, known_epochs)
        return inside + (np.minimum(minute, 0) + np.maximum(minute - known_minutes[-1], 0)) / rate

    axes.secondary_xaxis("top", functions=(to_minutes, to_epochs)).set_xlabel("minutes of training")

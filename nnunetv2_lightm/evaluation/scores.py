"""DSC and IoU per class, as in the paper's tables, and their statistics over the cases.

For one case and one class, with TP, FP and FN counted in voxels:

    DSC = 2 TP / (2 TP + FP + FN)        IoU = TP / (TP + FP + FN)

A class's DSC and mIoU are the means over the cases. A case in which neither the reference nor the prediction has a
voxel of the class is not counted (NaN); if only one of them has, both scores are 0. The average is the mean of the
classes' means. All of this agrees with nnU-Net's own summary.json, except that there a class which no case has turns
the average into NaN; here it is left out. The distances between surfaces are in `surface_scores`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..dataset_json import label_values
from .bootstrap import mean_intervals

METRICS = ("DSC", "IoU")
# What a segmentation without a fault scores.
FAULTLESS = {"DSC": 1.0, "IoU": 1.0, "NSD": 1.0, "HD95_mm": 0.0}


class EvaluationError(ValueError):
    """Input that cannot be evaluated; the message names the file and says what to do."""


@dataclass(frozen=True)
class Evaluation:
    """Scores of every case and class.

    Attributes:
        cases: Names of the cases.
        classes: Names of the foreground classes.
        scores: Metric ("DSC", "IoU", also "HD95_mm" and "NSD") to scores, (cases, classes); NaN where not counted,
            which is the same for all metrics.
        nsd_tolerance_mm: Tolerance of NSD; None without surface scores.
        spacing_known: False if the files have no spacing, such as PNG: then everything in mm is in pixels.
    """

    cases: tuple[str, ...]
    classes: tuple[str, ...]
    scores: Mapping[str, np.ndarray]
    nsd_tolerance_mm: float | None = None
    spacing_known: bool = True

    def num_counted(self) -> np.ndarray:
        """Number of cases that count for each class, (classes,)."""
        return (~np.isnan(self.scores["DSC"])).sum(axis=0)

    def num_counted_in_average(self) -> int:
        """Number of cases that count for at least one class, and so for the average."""
        return int((~np.isnan(self.scores["DSC"])).any(axis=1).sum())

    def mean(self, metric: str) -> np.ndarray:
        """Mean over the cases that count, (classes,); NaN for a class that no case has."""
        return _of_counted(np.mean, self.scores[metric], at_least=1)

    def std(self, metric: str) -> np.ndarray:
        """Sample standard deviation (n - 1) over the cases that count, (classes,); NaN below two cases."""
        return _of_counted(_sample_std, self.scores[metric], at_least=2)

    def average(self, metric: str) -> float:
        """Mean of the classes' means: the paper's "Average"."""
        return float(_of_counted(np.mean, self.mean(metric)[:, None], at_least=1)[0])

    def average_std(self, metric: str) -> float:
        """Sample standard deviation over the cases of a case's mean over its classes."""
        return float(_of_counted(_sample_std, case_means(self.scores[metric])[:, None], at_least=2)[0])

    def interval(self, metric: str) -> np.ndarray:
        """Bootstrap 95 % interval of the mean, (classes, 2); NaN below three cases that count."""
        return mean_intervals(self.scores[metric])[0]

    def average_interval(self, metric: str) -> np.ndarray:
        """Bootstrap 95 % interval of the average, (2,); NaN below three cases that count."""
        return mean_intervals(self.scores[metric])[1]


def score_case(
    prediction: np.ndarray, reference: np.ndarray, classes: Mapping[str, tuple[int, ...]], ignored: int | None = None
) -> np.ndarray:
    """DSC and IoU of one case.

    Args:
        prediction: Label values, any shape.
        reference: Label values, the same shape.
        classes: Name to the values that make up the class.
        ignored: Reference value of the voxels to leave out.
    Returns: Scores, (metrics, classes) in the order of `METRICS`; NaN where both are empty.
    Raises: EvaluationError: if the shapes differ.

    Examples:
        >>> import numpy as np
        >>> from nnunetv2_lightm.evaluation.scores import score_case
        >>> prediction, reference = np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2])
        >>> score_case(prediction, reference, {"liver": (1,), "tumor": (2,)}, None).round(3).tolist()  # DSC, IoU
        [[0.667, 0.667], [0.5, 0.5]]
    """
    if prediction.shape != reference.shape:
        raise EvaluationError(
            f"the prediction is {_shape(prediction)} voxels and the reference {_shape(reference)}; "
            "a prediction must be on the grid of its reference"
        )
    if ignored is not None:
        kept = reference != ignored
        prediction, reference = prediction[kept], reference[kept]
    scores = np.full((len(METRICS), len(classes)), np.nan)
    for i, values in enumerate(classes.values()):
        predicted, present = class_mask(prediction, values), class_mask(reference, values)
        overlap = int(np.count_nonzero(predicted & present))
        total = int(np.count_nonzero(predicted)) + int(np.count_nonzero(present))
        if total:
            scores[:, i] = 2 * overlap / total, overlap / (total - overlap)
    return scores


def foreground_classes(labels: Mapping[str, int | list[int]]) -> tuple[dict[str, tuple[int, ...]], int | None]:
    """Split dataset.json's labels into the classes to score and the ignored value.

    Returns: Name to the values that make up the class; the value of "ignore" or None.
    Raises: EvaluationError: if a value is not a whole number or list of them, or there is no foreground.
    """
    classes, ignored = {}, None
    for name, value in labels.items():
        values = label_values(value)
        if values is None:
            raise EvaluationError(
                f"labels: {name!r} is {value!r}; nnU-Net's dataset.json maps a name to a whole number or a list of them"
            )
        if name == "ignore":
            ignored = values[0]
        elif set(values) != {0}:
            classes[name] = values
    if not classes:
        raise EvaluationError(f"labels: no foreground class in {dict(labels)}")
    return classes, ignored


def class_mask(segmentation: np.ndarray, values: tuple[int, ...]) -> np.ndarray:
    """Voxels of a class, bool, the shape of `segmentation`."""
    return segmentation == values[0] if len(values) == 1 else np.isin(segmentation, values)


def case_means(scores: np.ndarray) -> np.ndarray:
    """Each case's mean over the classes that count in it, (cases,); NaN where none does."""
    return _of_counted(np.mean, scores.T, at_least=1)


def credit_rightly_empty(metric: str, scores: np.ndarray, dsc: np.ndarray) -> np.ndarray:
    """Scores of several methods on the same cases; a method that rightly found nothing counts where another one counts.

    DSC is NaN if and only if neither the reference nor the prediction has a voxel of the class (`score_case`). If
    another method counts in that case, it found something that is not there, and scores 0. To leave out the case would
    leave out this fault, and no other. So the method that found nothing scores what a faultless segmentation does.

    Args:
        metric: One of `FAULTLESS`.
        scores: (methods, ...). Where a score is NaN but the method's DSC is not, it is undefined for another reason,
            and stays NaN.
        dsc: DSC of the same methods, cases and classes.
    Returns: The shape of `scores`; NaN where no method counts.
    """
    empty = np.isnan(dsc)
    return np.where(empty & np.isnan(scores) & ~empty.all(axis=0), FAULTLESS[metric], scores)


def _of_counted(statistic: Callable[[np.ndarray], float], table: np.ndarray, *, at_least: int) -> np.ndarray:
    counted = [column[~np.isnan(column)] for column in table.T]
    return np.array([statistic(column) if column.size >= at_least else np.nan for column in counted])


def _sample_std(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1))


def _shape(values: np.ndarray) -> str:
    return " x ".join(map(str, values.shape))

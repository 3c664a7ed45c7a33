"""The methods of a comparison: all runs of one trainer, and their scores together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..scores import METRICS, Evaluation
from .results import BenchmarkResults, Run

STOCK_TRAINER = "nnUNetTrainer"


@dataclass(frozen=True)
class Method:
    """A trainer in a comparison.

    Attributes:
        trainer: Its name.
        runs: All of them, by seed and fold.
        scored: Those that are complete and evaluated.
        evaluation: Scores of every case, each the mean over the runs that scored the case; None without such a run.
    """

    trainer: str
    runs: tuple[Run, ...]
    scored: tuple[Run, ...]
    evaluation: Evaluation | None

    @property
    def name(self) -> str:
        """The trainer without the words that all share."""
        return short_name(self.trainer)

    @property
    def seeds(self) -> list[int]:
        """Of the runs that count."""
        return sorted({run.seed for run in self.scored})

    def averages_by_seed(self, metric: str) -> list[float]:
        """The average over the classes, for each seed alone."""
        return [pool(run for run in self.scored if run.seed == seed).average(metric) for seed in self.seeds]


def find_methods(results: BenchmarkResults) -> list[Method]:
    """The methods in the order of their first runs."""
    methods = []
    for trainer in dict.fromkeys(run.trainer for run in results.runs):
        runs = sorted((run for run in results.runs if run.trainer == trainer), key=lambda run: (run.seed, run.fold))
        scored = tuple(run for run in runs if run.complete and run.evaluation)
        methods.append(Method(trainer, tuple(runs), scored, pool(scored) if scored else None))
    return methods


def reference_method(methods: Sequence[Method]) -> Method | None:
    """What the others are compared with: stock nnU-Net if it is scored, else the first that is; None if none is."""
    scored = [method for method in methods if method.evaluation]
    stock = [method for method in scored if method.trainer == STOCK_TRAINER]
    return next(iter(stock + scored), None)


def short_name(trainer: str) -> str:
    """A trainer's name without ``nnUNetTrainer`` in front, unless that is all of it."""
    return trainer.removeprefix(STOCK_TRAINER) or trainer


def natural_order(name: str) -> list[tuple[int, str]]:
    """Sorts "case_10" after "case_9"."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def pool(runs: Iterable[Run]) -> Evaluation:
    """Runs of several folds and seeds as one evaluation: the score of a case is the mean over the runs that have it."""
    tables = [run.evaluation["cases"] for run in runs]
    cases = sorted({case for table in tables for case in table}, key=natural_order)
    classes = list(dict.fromkeys(name for table in tables for scores in table.values() for name in scores))
    scores = {}
    for metric in METRICS:
        values = np.array(
            [[[_score(table, case, name, metric) for name in classes] for case in cases] for table in tables]
        ).reshape(len(tables), len(cases), len(classes))
        counted = (~np.isnan(values)).sum(axis=0)
        sums = np.nansum(values, axis=0)
        scores[metric] = np.divide(sums, counted, out=np.full(sums.shape, np.nan), where=counted > 0)
    return Evaluation(tuple(cases), tuple(classes), scores)


def _score(table: Mapping, case: str, name: str, metric: str) -> float:
    score = table.get(case, {}).get(name, {}).get(metric)
    return float("nan") if score is None else float(score)

"""The methods of a comparison: all runs of one trainer, and their scores together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...evaluation.json_files import evaluation_from_json
from ...evaluation.scores import Evaluation, case_means, credit_rightly_empty
from ..results import BenchmarkResults, Run

STOCK_TRAINER = "nnUNetTrainer"


@dataclass(frozen=True)
class Contender:
    """A trainer in a comparison.

    Attributes:
        trainer: Its name.
        runs: All of them, by seed and fold.
        scored: Those that are complete and evaluated.
        evaluation: Scores of every case, each the mean over the runs that scored the case (`pool`); None without such a
            run.
    """

    trainer: str
    runs: tuple[Run, ...]
    scored: tuple[Run, ...]
    evaluation: Evaluation | None

    @property
    def name(self) -> str:
        """The trainer's name without the common prefix."""
        return short_name(self.trainer)

    @property
    def seeds(self) -> list[int]:
        """Seeds of the runs that count."""
        return sorted({run.seed for run in self.scored})

    def averages_by_seed(self, metric: str) -> list[float]:
        """The average over the classes, for each seed separately."""
        return [pool(run for run in self.scored if run.seed == seed).average(metric) for seed in self.seeds]


def find_contenders(results: BenchmarkResults) -> list[Contender]:
    """The methods in the order of their first runs."""
    contenders = []
    for trainer in dict.fromkeys(run.trainer for run in results.runs):
        runs = sorted((run for run in results.runs if run.trainer == trainer), key=lambda run: (run.seed, run.fold))
        scored = tuple(run for run in runs if run.complete and run.evaluation)
        contenders.append(Contender(trainer, tuple(runs), scored, pool(scored) if scored else None))
    return contenders


def reference_contender(contenders: Sequence[Contender]) -> Contender | None:
    """The method to compare the others with: stock nnU-Net if scored, else the first scored one, else None."""
    scored = [contender for contender in contenders if contender.evaluation]
    stock = [contender for contender in scored if contender.trainer == STOCK_TRAINER]
    return next(iter(stock + scored), None)


def have_same_cases(contenders: Sequence[Contender]) -> bool:
    """Whether all scored methods are scored on the same cases: only then do their means say which is better.

    They are not if e.g. other folds of each are complete.
    """
    return len({frozenset(contender.evaluation.cases) for contender in contenders if contender.evaluation}) <= 1


def short_name(trainer: str) -> str:
    """A trainer's name without ``nnUNetTrainer`` in front, unless that is all of it."""
    return trainer.removeprefix(STOCK_TRAINER) or trainer


def natural_order(name: str) -> list[tuple[int, str]]:
    """Sorts "case_10" after "case_9"."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def pool(runs: Iterable[Run]) -> Evaluation:
    """Runs of several folds and seeds as one evaluation: the score of a case is the mean over the runs that have it.

    If a class counts in some of these runs alone, the others have rightly found nothing, and count as faultless: a
    false positive of one seed is not one of all seeds.

    Raises: EvaluationError: if an evaluation is not one as ``nnUNetv2_lightm evaluate --json`` writes it.
    """
    evaluations = [evaluation_from_json(run.evaluation) for run in runs]
    first = evaluations[0]
    cases = sorted({case for evaluation in evaluations for case in evaluation.cases}, key=natural_order)
    metrics = [metric for metric in first.scores if all(metric in other.scores for other in evaluations)]
    scores = {metric: np.full((len(cases), len(first.classes)), np.nan) for metric in metrics}
    for i, case in enumerate(cases):
        rows = [(evaluation, evaluation.cases.index(case)) for evaluation in evaluations if case in evaluation.cases]
        by_run = {metric: np.stack([evaluation.scores[metric][row] for evaluation, row in rows]) for metric in metrics}
        for metric in metrics:
            # A row for each class: its mean over the runs.
            scores[metric][i] = case_means(credit_rightly_empty(metric, by_run[metric], by_run["DSC"]).T)
    return replace(first, cases=tuple(cases), scores=scores)

"""Chooses the cases to show, and reads their files."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...evaluation.scores import credit_rightly_empty
from ..results import BenchmarkResults, Run
from .case_slices import CaseFiles, CaseSlice, load_slices
from .contenders import Contender


@dataclass(frozen=True)
class PicturedCase:
    """A case to show.

    Attributes:
        case: Its name.
        rank: "worst", "median" or "best".
        mean_dsc: Mean over classes, then methods.
    """

    case: str
    rank: str
    mean_dsc: float


@dataclass
class LoadedOverlays:
    """What could be read for a case.

    Attributes:
        slices: Method name to the slice with its prediction.
        missing: Method name to the missing folder or file.
    """

    slices: dict[str, CaseSlice] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def choose_cases(contenders: Sequence[Contender]) -> list[PicturedCase]:
    """The worst, the median and the best case by mean DSC over all scored methods, among the cases that all have.

    Fewer than three cases are shown once each; a case without any class is never chosen.
    """
    evaluations = [contender.evaluation for contender in contenders if contender.evaluation]
    if not evaluations:
        return []
    common = set.intersection(*(set(evaluation.cases) for evaluation in evaluations))
    means = []
    for case in (case for case in evaluations[0].cases if case in common):
        dsc = np.stack([e.scores["DSC"][e.cases.index(case)] for e in evaluations])
        scores = credit_rightly_empty("DSC", dsc, dsc).ravel()
        if not np.isnan(scores).all():
            means.append((float(np.nanmean(scores)), case))
    means.sort(key=lambda mean: mean[0])
    last = len(means) - 1
    places = {0: "worst", last // 2: "median", last: "best"} if last > 1 else {0: "worst", 1: "best"}
    return [PicturedCase(means[i][1], places[i], means[i][0]) for i in sorted(places) if i < len(means)]


def load_case(results: BenchmarkResults, contenders: Sequence[Contender], case: str) -> LoadedOverlays:
    """Read a case with each method's prediction: that of its first run, by seed and then fold, which scored the case
    and still has the files.

    Raises: EvaluationError: if a file is there but cannot be read.
    """
    loaded = LoadedOverlays()
    available: dict[str, CaseFiles] = {}
    for contender in contenders:
        choices = [
            _files(run, case, results.file_ending) for run in contender.scored if case in run.evaluation["cases"]
        ]
        if not choices:
            continue
        files = next((files for files in choices if not _first_missing(files)), choices[0])
        if missing := _first_missing(files):
            loaded.missing[contender.name] = missing
        else:
            available[contender.name] = CaseFiles(**files)
    if available:
        with contextlib.redirect_stdout(sys.stderr):  # nnU-Net's readers print remarks
            loaded.slices = load_slices(
                case, available, labels=results.labels, file_ending=results.file_ending, reader=results.reader
            )
    return loaded


def _files(run: Run, case: str, file_ending: str) -> dict[str, Path | None]:
    names = {"images": f"{case}_0000{file_ending}", "references": case + file_ending, "predictions": case + file_ending}
    folders = {kind: getattr(run, kind) for kind in names}
    return {kind: None if folders[kind] is None else folders[kind] / name for kind, name in names.items()}


def _first_missing(files: dict[str, Path | None]) -> str | None:
    for kind, file in files.items():
        if file is None:
            return f"the folder of {kind}, which the results do not name"
        if not file.parent.is_dir():
            return f"the folder {file.parent} of {kind}"
        if not file.is_file():
            return f"the file {file}"
    return None

"""Costs of an iteration for trainers that joined the study later: measured in turns with stock nnU-Net, and scaled by
what stock nnU-Net's cost when the study began. So "equal seconds" stay those of one machine."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nnunetv2_lightm.benchmark.costs import MeasuredCosts, load_costs, missing_turns
from nnunetv2_lightm.benchmark.measure_costs import ROUNDS
from nnunetv2_lightm.benchmark.results import BenchmarkResults
from nnunetv2_lightm.runs.process import CommandFailed

from .comparisons import RIVALS, Comparison

STOCK = RIVALS[0]


def measure_beside_stock(
    comparison: Comparison, trainers: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> None:
    """Measure the trainers in turns with stock nnU-Net, into the study's folder; nothing else may run meanwhile.

    Trainers that come later get turns of stock nnU-Net of their own: another day has another speed.

    Raises: CommandFailed: if that fails; the same call goes on with the turns that are missing.
    """
    key = hashlib.sha256(" ".join(sorted(trainers)).encode()).hexdigest()[:8]
    file = _folder(folder) / f"{comparison.data.name}_{key}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    data = comparison.data
    where = ("-d", data.name, "-c", data.configuration, "-p", data.plans, "-f", "0", "-device", "cpu")
    command = [sys.executable, "-m", "nnunetv2_lightm.benchmark.measure_costs", *where, "-o", str(file)]
    command += ["-tr", *dict.fromkeys((STOCK, *trainers))]
    if code := subprocess.run(command, env=environment, check=False).returncode:
        raise CommandFailed(f"measuring costs next to {STOCK}'s ended with exit code {code}: the message is above")


def with_costs_beside_stock(results: BenchmarkResults, comparison: Comparison, folder: Path) -> BenchmarkResults:
    """The same results, with the costs of the comparison's trainers that they lack, where those were measured."""
    if STOCK not in results.calibration:
        return results
    begun, scaled = results.calibration[STOCK], {}
    for costs in _measured(comparison, folder):
        now = costs.trainers[STOCK].median.model_dump()
        for name in comparison.methods:
            if name in costs.trainers:
                parts = costs.trainers[name].median.model_dump()
                scaled[name] = {part: seconds * begun[part] / now[part] for part, seconds in parts.items()}
    return replace(results, calibration=scaled | dict(results.calibration))


def _measured(comparison: Comparison, folder: Path) -> Iterator[MeasuredCosts]:
    """Each measurement next to stock nnU-Net on the data set that has all turns."""
    for file in sorted(_folder(folder).glob(f"{comparison.data.name}*.json")):
        costs = load_costs(file)
        if not missing_turns(costs, costs.trainers, ROUNDS):
            yield costs


def _folder(folder: Path) -> Path:
    return folder / "costs" / "beside_stock"

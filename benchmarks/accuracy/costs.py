"""What an iteration costs of trainers that came to the study later: measured in turns with stock nnU-Net, and taken as
a multiple of what stock nnU-Net's cost when the study began. "Equal seconds" so stay those of one machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from nnunetv2_lightm.benchmark.costs import load_costs
from nnunetv2_lightm.benchmark.results import BenchmarkResults
from nnunetv2_lightm.runs.process import CommandFailed

from .comparisons import RIVALS, Comparison

STOCK = RIVALS[0]


def measure_beside_stock(
    comparison: Comparison, trainers: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> None:
    """Measure the trainers, stock nnU-Net in turns with them, into the study's folder; nothing else may run meanwhile.

    Raises: CommandFailed: if that fails; the turns so far are kept.
    """
    file = _file(comparison, folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    known = load_costs(file).trainers if file.exists() else {}
    data = comparison.data
    where = ("-d", data.name, "-c", data.configuration, "-p", data.plans, "-f", "0", "-device", "cpu")
    command = [sys.executable, "-m", "nnunetv2_lightm.benchmark.measure_costs", *where, "-o", str(file)]
    command += ["-tr", *dict.fromkeys((STOCK, *known, *trainers))]
    if code := subprocess.run(command, env=environment, check=False).returncode:
        raise CommandFailed(f"measuring costs next to {STOCK}'s ended with exit code {code}: the message is above")


def with_costs_beside_stock(results: BenchmarkResults, comparison: Comparison, folder: Path) -> BenchmarkResults:
    """The same results, with the costs of the comparison's trainers that they lack, where those were measured."""
    file = _file(comparison, folder)
    if STOCK not in results.calibration or not file.exists():
        return results
    measured = load_costs(file).trainers
    begun, now = results.calibration[STOCK], asdict(measured[STOCK].median)
    scaled = {
        name: {part: seconds * begun[part] / now[part] for part, seconds in asdict(measured[name].median).items()}
        for name in comparison.methods
        if name in measured
    }
    return replace(results, calibration=scaled | dict(results.calibration))


def _file(comparison: Comparison, folder: Path) -> Path:
    return folder / "costs" / "beside_stock" / f"{comparison.data.name}.json"

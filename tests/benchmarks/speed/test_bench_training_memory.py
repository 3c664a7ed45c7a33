"""The bytes of a training step: counted on fake tensors, fitted, and those planned with."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest
import torch

from benchmarks.speed import training_memory
from benchmarks.speed.harness.results import Result
from benchmarks.speed.harness.step_count import count_saved, count_step
from benchmarks.speed.harness.timing import QUICK
from benchmarks.speed.harness.training_step import Workload
from benchmarks.speed.training_memory import Peak, fit_peaks, strides_of
from nnunetv2_lightm import LightMUNet
from nnunetv2_lightm.planning.memory_model import GPU, StepMemory

UNSEEN = [
    Workload((40, 24, 56), strides_of(3), batch=3, classes=5),
    Workload((8, 64, 72), strides_of(3, thin=(1, 2)), classes=11),
    Workload((160, 96), strides_of(2), batch=2),
]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.parametrize("workload", UNSEEN, ids=lambda workload: "x".join(map(str, workload.patch)))
def test_the_network_takes_what_is_planned_with(workload):
    """Fails when the network has changed: `python -m benchmarks.speed.training_memory` gives the new coefficients."""
    arguments = (workload.patch, workload.strides, workload.batch, workload.classes)
    # Of the bytes per class the loss keeps 12; the others are gone before the peak.
    saved = replace(GPU, backward=0, slab=0, per_class=12).maps_bytes(*arguments)
    weights = 5e5  # in half precision
    assert saved + weights == pytest.approx(count_saved(workload), rel=0.03)
    momentum_and_weights = 8 * sum(p.numel() for p in LightMUNet(1, 3, spatial_dims=3).parameters())
    found = count_step(workload).peak + momentum_and_weights
    assert GPU.gib(*arguments) * 2**30 == pytest.approx(found, rel=0.15)


def test_autocast_saves_less_than_float32():
    workload = Workload((32, 32, 32), strides_of(3))
    # Layers that recompute save the stem's map and the scan's states in float32 all the same: counted, 0.81.
    assert count_saved(workload, scan="torch_chunked") < 0.85 * count_saved(workload, None, "torch_chunked")
    assert not torch.is_autocast_enabled("cpu")


@pytest.fixture
def result(monkeypatch):
    monkeypatch.setattr("builtins.print", lambda *_, **__: None)
    return Result("training_memory", QUICK, threads=1)


@pytest.mark.slow
def test_fit_finds_what_the_peaks_were_made_with(result):
    saved = StepMemory((200, 900, 2000, 6000), 0, 0, 1 << 18, 12, 0)
    truth = {"backward": 250.0, "slab": 2000.0, "fixed_mib": 40.0, "loss": 6.0}
    workloads = [Workload(patch, strides_of(len(patch)), batch) for patch, batch in training_memory.PEAKS]
    workloads += [replace(workload, classes=200) for workload in workloads]
    peaks = [Peak(workload, Peak(workload, 0, saved).estimate(**truth), saved) for workload in workloads]
    assert fit_peaks("made", peaks, result) == pytest.approx(tuple(truth.values()), rel=0.05)
    assert len(result.tables["made"]) == len(workloads)


def test_strides_leave_the_thin_axis():
    assert strides_of(3, thin=(1, 3)) == [[1, 1, 1], [1, 2, 2], [2, 2, 2], [1, 2, 2]]

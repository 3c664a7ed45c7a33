"""The bytes of a training step: counted on fake tensors, measured in the allocator, fitted, and those planned with."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import training_memory
from harness.checks import backend
from harness.results import Result
from harness.step_memory import Case, allocated_peak, saved_bytes
from training_memory import GPU, GPU_ON_CPU, Peak, fit_peaks, strides_of

from nnunetv2_lightm.measure.timing import QUICK
from nnunetv2_lightm.planning import memory
from nnunetv2_lightm.planning.memory import StepMemory

UNSEEN = [
    Case((40, 24, 56), strides_of(3), batch=3, classes=5),
    Case((8, 64, 72), strides_of(3, thin=(1, 2)), classes=11),
    Case((160, 96), strides_of(2), batch=2),
]


@pytest.mark.parametrize("case", UNSEEN, ids=lambda case: "x".join(map(str, case.patch)))
def test_the_network_saves_what_is_planned_with(case):
    """Fails when the network has changed: `python benchmarks/speed/training_memory.py` gives the new coefficients."""
    with backend("torch_chunked"):
        found = saved_bytes(GPU, case)
    planned = replace(memory.GPU, backward=0).sample_bytes(case.patch, case.strides, case.classes)
    constant = 5e6  # weights in half precision
    assert case.batch * planned + constant == pytest.approx(found, rel=0.01)


def test_autocast_saves_less_than_float32_and_is_switched_off_again():
    case = Case((32, 32, 32), strides_of(3))
    with backend("torch_chunked"):
        assert saved_bytes(GPU, case) < 0.8 * saved_bytes(replace(GPU, autocast=None), case)
    assert not torch.is_autocast_enabled("cuda")


def test_allocator_gives_out_what_is_saved_and_more():
    case = Case((16, 16, 16), strides_of(3))
    with backend("torch_chunked"):
        peak, saved = allocated_peak(GPU_ON_CPU, case), saved_bytes(GPU_ON_CPU, case)
    assert saved < peak < saved + 100 * 2**20


@pytest.fixture
def result(monkeypatch):
    monkeypatch.setattr("builtins.print", lambda *_, **__: None)
    return Result("training_memory", QUICK, threads=1)


def test_fit_finds_what_the_peaks_were_made_with(result):
    saved = StepMemory((2000, 9000, 20000, 60000), 0, 12, 0)
    truth = {"backward": 2500.0, "fixed_mib": 40.0, "loss": 6.0}
    cases = [Case(patch, strides_of(len(patch))) for patch in training_memory.PEAKS]
    cases += [replace(case, classes=200) for case in cases]
    peaks = [Peak(case, Peak(case, 0, saved).estimate(**truth), saved) for case in cases]
    assert fit_peaks("made", peaks, result) == pytest.approx(tuple(truth.values()), rel=0.02)
    assert len(result.tables["made"]) == len(cases)


def test_strides_leave_the_thin_axis():
    assert strides_of(3, thin=(1, 3)) == [[1, 1, 1], [1, 2, 2], [2, 2, 2], [1, 2, 2]]

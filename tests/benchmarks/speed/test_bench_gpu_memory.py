"""The memory of a training step on a GPU, counted without one: the goals, and that the count is what is allocated."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.speed import gpu_memory
from benchmarks.speed.gpu_memory import workload_of
from benchmarks.speed.harness.checks import backend
from benchmarks.speed.harness.models import NNUNET, OURS
from benchmarks.speed.harness.step_count import count_saved, count_step
from benchmarks.speed.harness.training_step import Step, Workload
from nnunetv2_lightm.ops.backends.recomputing import slabs

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
pytestmark = [pytest.mark.slow, needs_triton]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_goals_at_nnunets_usual_plan(dtype):
    """128x128x128, batch 2: saved bytes at most 0.4 of nnU-Net's, the peak at most 0.6."""
    ours, theirs = (count_step(workload_of(which, (128, 128, 128), 2), dtype) for which in (OURS, NNUNET))
    assert ours.saved <= 0.4 * theirs.saved
    assert ours.peak <= 0.6 * theirs.peak
    assert sum(ours.saved_by_voxels.values()) == ours.saved and len(ours.saved_by_voxels) == 4
    assert len(theirs.saved_by_voxels) == 6


@pytest.mark.parametrize("which", [OURS, NNUNET])
def test_the_peak_is_the_allocators(which, monkeypatch):
    """On a CPU, where the allocator can be watched; PyTorch's CPU kernels take some extra work space."""
    workload = workload_of(which, (64, 64), 2) if which == OURS else workload_of(which, (256, 256), 1)
    monkeypatch.setattr(slabs, "SLAB_ELEMENTS", 1 << 16)
    with backend("torch_chunked"):
        measured = allocated_peak(workload)
    counted = count_step(workload, None, "torch_chunked").peak
    assert counted <= measured <= 1.15 * counted + 2**20


def allocated_peak(workload: Workload) -> int:
    """Largest number of bytes that PyTorch's CPU allocator has given out during a step beyond those before it."""
    step = Step(workload)
    step.run(None)  # makes the optimizer's state
    step.optimizer.zero_grad(set_to_none=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step.run(None)
    events = profiler.profiler.kineto_results.events()
    allocated = peak = 0
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        allocated += event.nbytes()
        peak = max(peak, allocated)
    return peak


def test_saved_bytes_alone_are_those_of_the_step():
    workload = workload_of(OURS, (32, 32, 32), 1)
    assert count_saved(workload) == count_step(workload).saved


def test_a_quick_run_writes_its_tables(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_memory, "QUICK_PLANS", (((256, 256), 1),))
    assert gpu_memory.main(["--quick", "--out", str(tmp_path)]) == 0
    tables = json.loads((tmp_path / "gpu_memory.json").read_text(encoding="utf-8"))["tables"]
    (step, resolutions) = tables.values()
    assert [record["GiB"] for record in step][:2] == ["saved by autograd", "peak without weights and momentum"]
    assert resolutions[0]["resolution"] == "1/1" and resolutions[0]["LightMUNet, MiB"] > 0

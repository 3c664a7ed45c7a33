"""The predicted time of a training step on a GPU: what is counted, and that it does not grow again."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.speed.gpu_memory import workload_of
from benchmarks.speed.gpu_model import totals
from benchmarks.speed.harness.models import NNUNET, OURS
from benchmarks.speed.harness.step_cost import CARDS, Costs, cost_of_step

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


@pytest.mark.parametrize(
    ("run", "moved"),
    [
        (lambda x, half: x.add(x), 3 * 4000),
        (lambda x, half: x.add_(1), 2 * 4000),
        (lambda x, half: x.copy_(half), 4000 + 2000),
        (lambda x, half: half.zero_(), 2000),
        (lambda x, half: torch.zeros_like(x), 4000),
        (lambda x, half: torch.add(half, half, out=x), 4000 + 2 * 2000),
        (lambda x, half: torch._foreach_add_([x, x], [half, half]), 2 * (2 * 4000 + 2000)),
        (lambda x, half: x[:500].mul(2), 2 * 2000),
        (lambda x, half: x.view(10, 100).t(), 0),
    ],
)
def test_bytes_that_an_operator_moves(run, moved):
    """What it reads and writes; what it overwrites, it does not read."""
    with FakeTensorMode():
        x, half = torch.empty(1000), torch.empty(1000, dtype=torch.float16)
        with Costs() as costs:
            run(x, half)
    assert sum(cost.bytes for cost in costs.by_kernel.values()) == moved
    assert sum(cost.launches for cost in costs.by_kernel.values()) == (1 if moved else 0)


@needs_triton
@pytest.mark.slow
def test_a_step_at_nnunets_usual_plan():
    """On an H100 the card is busy longer than the host, and the step takes at most twice nnU-Net's."""
    costs = {which: cost_of_step(workload_of(which, (128, 128, 128), 2)) for which in (OURS, NNUNET)}
    found = totals(costs, CARDS["H100"])
    assert found["LightMUNet, host ms"] <= 0.5 * found["LightMUNet, ms"]
    assert found["ratio"] <= 2

"""The predicted time of a training step on a GPU: what is counted, and that it does not grow again."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.speed.gpu_memory import workload_of
from benchmarks.speed.gpu_model import totals
from benchmarks.speed.harness.models import NNUNET, OURS
from benchmarks.speed.harness.step_cost import (
    CARDS,
    TRITON,
    Cost,
    Costs,
    card_named,
    cost_of_prediction,
    cost_of_step,
    host_ms,
    launches,
)

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
    assert found["LightMUNet, host ms"] <= 0.7 * found["LightMUNet, ms"]
    assert found["ratio"] <= 2


@needs_triton
@pytest.mark.slow
def test_a_prediction_costs_a_fraction_of_a_step():
    """Of the kernels of the forward pass, none of the backward one."""
    workload = workload_of(OURS, (32, 32, 32), 1)
    step, prediction = cost_of_step(workload), cost_of_prediction(workload)
    assert 0 < launches(prediction) < 0.5 * launches(step)
    assert f"{TRITON}scan_chunks" in prediction and f"{TRITON}backward_chunks" not in prediction


def test_the_host_takes_longer_to_launch_a_kernel_of_triton():
    assert host_ms({f"{TRITON}norm": Cost(launches=1000), "torch: add": Cost(launches=1000)}) == pytest.approx(15 + 6)


def test_cards_are_found_by_pytorchs_names():
    names = ("NVIDIA H200", "NVIDIA GeForce RTX 4090", "NVIDIA A100-SXM4-40GB", "Tesla T4", "NVIDIA GeForce RTX 3060")
    cards = ("H200", "RTX4090", "A100", "T4", "RTX3060")
    assert [card_named(name) for name in names] == [CARDS[key] for key in cards]
    assert card_named("NVIDIA L40S") is None

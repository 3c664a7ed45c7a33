"""Times, FLOP and bytes of the network's stages."""

from __future__ import annotations

import time

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed.harness.checks import backend
from benchmarks.speed.harness.models import forward_pass, light_m_unet, sample
from benchmarks.speed.harness.peaks import measure_peaks
from benchmarks.speed.harness.stages import operator_name, recording, stages_of, torch_operators
from benchmarks.speed.harness.timing import QUICK

PATCHES = {2: (32, 16), 3: (16, 16, 8)}


@pytest.mark.parametrize("dims", PATCHES)
def test_flop_of_the_stages_are_those_that_pytorch_counts(dims):
    network, patch = light_m_unet(dims), PATCHES[dims]
    with backend("reference"), FlopCounterMode(display=False) as counter:
        forward_pass(network)(*sample(patch))
    stages = stages_of(network, patch)
    assert sum(stage.gflop for stage in stages) == pytest.approx(counter.get_total_flops() / 1e9, rel=1e-9)


def test_scan_updates_are_tokens_times_channels_times_states():
    updates = {stage.name: stage.scan_gupdates * 1e9 for stage in stages_of(light_m_unet(3), (16, 16, 8))}
    assert updates["encoder 1"] == pytest.approx(16 * 16 * 8 * 64 * 16)
    assert updates["encoder 2"] == pytest.approx(2 * 8 * 8 * 4 * 128 * 16)
    assert updates["bottleneck"] == pytest.approx(4 * 2 * 2 * 1 * 512 * 16)
    assert updates["stem"] == updates["head"] == 0


def test_every_stage_is_timed_forward_and_backward():
    network, (image, _) = light_m_unet(2), sample(PATCHES[2])
    stages = stages_of(network, PATCHES[2])
    begin = time.perf_counter()
    with recording(stages) as clock:
        network(image).mean().backward()
        end = time.perf_counter()
    backward = clock.backward(stages, end)
    names = [stage.name for stage in stages]
    assert list(clock.forward) == names
    assert list(backward) == names[::-1]
    assert all(seconds > 0 for seconds in (*clock.forward.values(), *backward.values()))
    assert sum(clock.forward.values()) + sum(backward.values()) < end - begin
    assert clock.bytes_moved["encoder 1"] == 4 * 32 * 16 * (32 + 64 / 4)


def test_hooks_are_gone_afterwards():
    network, (image, _) = light_m_unet(2), sample(PATCHES[2])
    with recording(stages_of(network, PATCHES[2])) as clock:
        pass
    network(image)
    assert clock.forward == {}


def test_operators_come_by_their_time():
    found = torch_operators(lambda: torch.mm(torch.ones(300, 300), torch.ones(300, 300)))
    times = [entry["ms"] for entry in found]
    assert times == sorted(times, reverse=True)
    assert "aten::mm" in {entry["operator"] for entry in found}


def test_custom_operators_have_readable_names():
    assert operator_name("GeneratedBackwardFor_nnunetv2_lightm_scan_default").startswith(
        "nnunetv2_lightm_scan (forward"
    )
    assert operator_name("aten::mm") == "aten::mm"


def test_peaks_are_positive_and_ordered():
    for spread in measure_peaks(QUICK).values():
        assert 0 < spread.q1 <= spread.median <= spread.q3

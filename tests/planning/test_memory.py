"""The estimate of a step's memory, against the measurements that it was fitted to."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from nnunetv2_lightm.planning import memory
from nnunetv2_lightm.planning.memory import CPU_COMPILED, GPU, StepMemory, voxels_at

STRIDES = {dims: [[1] * dims, *[[2] * dims] * 3] for dims in (2, 3)}


@pytest.fixture(scope="module")
def measured(repository):
    return json.loads((repository / "benchmarks/results/training_memory.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["GPU", "CPU_COMPILED"])
def test_coefficients_are_those_of_the_benchmark(measured, name):
    found = asdict(getattr(memory, name))
    assert {**found, "saved": list(found["saved"])} == measured["coefficients"][name]
    assert not measured["quick"]


def test_compiled_layers_take_what_was_measured(measured):
    records = measured["tables"]["peak RSS minus RSS before, compiled layers"]
    assert len(records) >= 4
    for record in records:
        patch = [int(size) for size in record["patch"].split("x")]
        estimate = CPU_COMPILED.gib(patch, STRIDES[len(patch)], 1, record["classes"]) * 1024
        # Weights and moments were there before.
        assert estimate - 29 == pytest.approx(record["measured, MiB"], rel=0.1)


def test_voxels_are_floored_at_each_resolution():
    assert voxels_at((9, 20, 14), [(1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2)]) == [2520, 630, 60, 4]
    assert voxels_at((1, 4), [(1, 1), (2, 2)]) == [4, 2]


def test_peak_by_hand():
    """Two resolutions of 16 and 4 voxels: in the loss, in the lower stage's backward pass, in the upper one's."""
    patch, strides = (4, 4), [(1, 1), (2, 2)]
    assert StepMemory((10, 100), 0, 7, 0).sample_bytes(patch, strides, 3) == 160 + 400 + 7 * 3 * 16
    assert StepMemory((10, 100), 30, 0, 0).sample_bytes(patch, strides, 3) == 160 + 400 + 30 * 2 * 4
    assert StepMemory((10, 100), 80, 0, 0).sample_bytes(patch, strides, 3) == 160 + 80 * 16
    assert StepMemory((10, 100), 80, 0, 3).gib(patch, strides, 5, 3) == (5 * 1440 + 3 * 2**20) / 2**30


@pytest.mark.parametrize("model", [GPU, CPU_COMPILED], ids=["gpu", "cpu"])
@pytest.mark.parametrize("patch", [(64, 64, 48), (256, 192)], ids=str)
def test_largest_batch_just_fits(model, patch):
    strides = STRIDES[len(patch)]
    batch = model.largest_batch(6.0, patch, strides, 3)
    assert model.gib(patch, strides, batch, 3) <= 6.0 < model.gib(patch, strides, batch + 1, 3)
    assert model.largest_batch(0.01, patch, strides, 3) == 0


def test_compiled_layers_take_a_fraction_of_what_is_planned_for_a_gpu():
    step = ((96, 96, 96), STRIDES[3], 2, 3)
    assert CPU_COMPILED.gib(*step) < 0.15 * GPU.gib(*step)

"""The estimate of a step's memory, against the measurements that it was fitted to."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from nnunetv2_lightm.ops.backends.recomputing import slabs
from nnunetv2_lightm.planning import memory_model
from nnunetv2_lightm.planning.memory_model import CPU_COMPILED, GPU, StepMemory, voxels_at

STRIDES = {dims: [[1] * dims, *[[2] * dims] * 3] for dims in (2, 3)}


@pytest.fixture(scope="module")
def measured(repository):
    return json.loads((repository / "benchmarks/results/training_memory.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["GPU", "CPU_COMPILED"])
def test_coefficients_are_those_of_the_benchmark(measured, name):
    found = asdict(getattr(memory_model, name))
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

    def model(**coefficients):
        return StepMemory(
            (10, 100), **dict.fromkeys(("backward", "slab", "slab_voxels", "per_class", "fixed_mib"), 0) | coefficients
        )

    assert model(per_class=7).maps_bytes(patch, strides, 1, 3) == 160 + 400 + 7 * 3 * 16
    assert model(backward=30).maps_bytes(patch, strides, 1, 3) == 160 + 400 + 30 * 2 * 4
    assert model(backward=80).maps_bytes(patch, strides, 1, 3) == 160 + 80 * 16
    assert model(backward=80, fixed_mib=3).gib(patch, strides, 5, 3) == (5 * 1440 + 3 * 2**20) / 2**30
    # A slab that holds all of one sample's voxels does not grow with the batch.
    assert model(slab=80, slab_voxels=16).maps_bytes(patch, strides, 1, 3) == 160 + 80 * 16
    assert model(slab=80, slab_voxels=16).maps_bytes(patch, strides, 5, 3) == 5 * 560 + 80 * 16


@pytest.mark.parametrize("model", [GPU, CPU_COMPILED], ids=["gpu", "cpu"])
@pytest.mark.parametrize("patch", [(64, 64, 48), (256, 192)], ids=str)
def test_largest_batch_just_fits(model, patch):
    strides = STRIDES[len(patch)]
    batch = model.largest_batch(6.0, patch, strides, 3)
    assert model.gib(patch, strides, batch, 3) <= 6.0 < model.gib(patch, strides, batch + 1, 3)
    assert model.largest_batch(0.01, patch, strides, 3) == 0


def test_nnunets_usual_plan_trains_on_the_card_that_it_is_made_for():
    """By this count: 128x128x128 with batch 2, which nnU-Net plans for 8 GB."""
    assert GPU.gib((128, 128, 128), STRIDES[3], 2, 3) < 0.5 * memory_model.USABLE_SHARE * 8


def test_a_slab_is_as_large_as_the_layers_have_it():
    assert GPU.slab_voxels * 32 == slabs.SLAB_ELEMENTS

"""DistributedDataParallel: two ranks, each with half of the batch, train as one with all of it."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch

from nnunetv2_lightm.ops.backends import cpu_native

from .two_ranks import train

pytestmark = pytest.mark.slow

CASES = list(product(["cpu_native", "torch_chunked"], [False, True], [False, True]))
all_cases = pytest.mark.parametrize(("backend", "deep_supervision", "batch_dice"), CASES)
STRIDES = [[1, 1], [2, 2], [2, 2], [2, 2]]


def is_usable(backend):
    return backend != cpu_native.NAME or cpu_native.not_supported_reason("cpu") is None


@pytest.fixture(scope="module")
def arguments(planned):
    """Of ``train``, by case; a batch of four images in 2D."""
    dataset_json = json.loads((planned.raw / "dataset.json").read_text())
    torch.manual_seed(0)
    data, target = torch.randn(4, 1, 24, 24), torch.randint(0, 3, (4, 1, 24, 24)).float()
    found = {}
    for backend, deep_supervision, batch_dice in CASES:
        plans = json.loads((planned.preprocessed / "nnUNetPlans.json").read_text())
        plans["configurations"]["2d"] |= {"batch_size": len(data), "batch_dice": batch_dice}
        plans["configurations"]["2d"]["architecture"]["arch_kwargs"]["strides"] = STRIDES
        found[backend, deep_supervision, batch_dice] = {
            # Both recipes, each in half of the cases.
            "trainer": "nnUNetTrainerLightMUNet" if batch_dice else "nnUNetTrainerLightMUNetAdamW",
            "backend": backend,
            "deep_supervision": deep_supervision,
            "plans": plans,
            "dataset_json": dataset_json,
            "data": data,
            "target": target,
        }
    return {case: values for case, values in found.items() if is_usable(case[0])}


@pytest.fixture(scope="module")
def ranks(planned, arguments, module_folder):
    """Results of the two ranks, by case."""
    torch.save(list(arguments.values()), module_folder / "cases.pt")
    command = [sys.executable, str(Path(__file__).with_name("two_ranks.py")), str(module_folder)]
    with planned.in_this_process():  # for its environment
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        processes = [subprocess.Popen([*command, str(rank), "2"], **options) for rank in range(2)]
    try:
        outputs = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    results = [torch.load(module_folder / f"rank_{rank}.pt", weights_only=False) for rank in range(2)]
    return dict(zip(arguments, zip(*results)))


@pytest.fixture
def two_ranks(ranks):
    """Results of the two ranks in a case."""

    def get(*case):
        if case not in ranks:
            pytest.skip(f"cpu_native {cpu_native.not_supported_reason('cpu')}")
        return ranks[case]

    return get


@all_cases
def test_gradients_are_those_of_the_whole_batch(
    two_ranks, planned, arguments, monkeypatch, backend, deep_supervision, batch_dice
):
    first, second = two_ranks(backend, deep_supervision, batch_dice)
    monkeypatch.setenv("NNUNETV2_LIGHTM_BACKEND", backend)
    with planned.in_this_process():
        alone = train(**arguments[backend, deep_supervision, batch_dice])
    assert (first["samples"], second["samples"], alone["samples"]) == (2, 2, 4)
    assert first["gradients"].keys() == alone["gradients"].keys()
    norm = torch.cat([gradient.flatten() for gradient in alone["gradients"].values()]).norm()
    for name, gradient in alone["gradients"].items():
        torch.testing.assert_close(first["gradients"][name], gradient, atol=float(1e-5 * norm), rtol=1e-3)
    assert sum(first["losses"] + second["losses"]) / 2 == pytest.approx(sum(alone["losses"]), abs=1e-4)


@all_cases
def test_ranks_stay_equal(two_ranks, backend, deep_supervision, batch_dice):
    """Gradients, and weights after the optimiser's steps."""
    first, second = two_ranks(backend, deep_supervision, batch_dice)
    for name in ("gradients", "weights"):
        torch.testing.assert_close(first[name], second[name], atol=0, rtol=0)


@all_cases
def test_every_parameter_gets_a_gradient(two_ranks, backend, deep_supervision, batch_dice):
    """So that it does without find_unused_parameters, which nnU-Net does not set: a second step would fail."""
    for rank in two_ranks(backend, deep_supervision, batch_dice):
        assert [name for name, gradient in rank["gradients"].items() if not gradient.abs().max() > 0] == []

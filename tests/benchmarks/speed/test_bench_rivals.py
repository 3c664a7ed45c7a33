"""The rivals compute what we compute, and a wrong backend is found out before it is timed."""

from __future__ import annotations

import os

import pytest
import torch

from benchmarks.speed.harness import checks
from benchmarks.speed.harness.checks import backend, network_failure, scan_failure, scan_inputs
from benchmarks.speed.harness.models import light_m_unet, sample
from benchmarks.speed.harness.scan_rivals import ExpRate, channels_first, mamba_py_scan, reference_loop
from nnunetv2_lightm.ops import selective_scan, selective_scan_reference
from nnunetv2_lightm.ops.backends import ENVIRONMENT_VARIABLE, cpu_native, native_library


@pytest.fixture
def problem():
    inputs = scan_inputs(2, 19, 5, 4, torch.float64)
    return inputs, selective_scan_reference(**inputs, delta_softplus=True)[0]


def test_reference_loop_is_the_selective_scan(problem):
    inputs, expected = problem
    torch.testing.assert_close(reference_loop(**channels_first(inputs)).transpose(1, 2), expected)


def test_mamba_py_is_the_selective_scan(problem):
    scan = mamba_py_scan()
    if scan is None:
        pytest.skip("mambapy is not installed: pip install '.[bench]'")
    inputs, expected = problem
    torch.testing.assert_close(scan(**inputs), expected)


def test_a_right_backend_passes():
    assert scan_failure("torch_chunked") is None


@pytest.mark.parametrize("wrong", [1.001, float("nan")])
def test_a_wrong_backend_does_not_pass(monkeypatch, wrong):
    monkeypatch.setattr(checks, "selective_scan", lambda *args, **options: wrong * selective_scan(*args, **options))
    assert "y differs" in scan_failure("torch_chunked")


def test_a_wrong_gradient_does_not_pass(monkeypatch):
    def without_gradient_of_b(B, **options):
        return selective_scan(B=B + (B.detach() - B), **options)

    monkeypatch.setattr(checks, "selective_scan", without_gradient_of_b)
    assert "gradient of B" in scan_failure("torch_chunked")


def test_a_network_is_compared_with_the_reference_scan(monkeypatch):
    network, (image, _) = light_m_unet(2), sample((16, 12))
    assert network_failure(network, image) is None
    forward = network.forward
    monkeypatch.setattr(
        network, "forward", lambda x: forward(x) * (1 if os.environ.get(ENVIRONMENT_VARIABLE) else 1.01)
    )
    assert "output differs" in network_failure(network, image)


def test_the_forced_backend_is_taken_back(monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "before")
    with backend("inside"):
        assert os.environ[ENVIRONMENT_VARIABLE] == "inside"
    assert os.environ[ENVIRONMENT_VARIABLE] == "before"
    monkeypatch.delenv(ENVIRONMENT_VARIABLE)
    with backend("inside"), backend(None):
        assert os.environ[ENVIRONMENT_VARIABLE] == "inside"
    assert ENVIRONMENT_VARIABLE not in os.environ


def test_an_exp_takes_a_plausible_time():
    reason = cpu_native.not_supported_reason("cpu")
    if reason:
        pytest.skip(f"the compiled library {reason}")
    exps = ExpRate()
    assert exps.instruction_set in native_library.instruction_sets()
    assert 1e-12 < exps.seconds() < 1e-7

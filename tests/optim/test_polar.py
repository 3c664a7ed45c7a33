"""The polar factor: near the one of a singular value decomposition, for every shape, scale and precision."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from nnunetv2_lightm.optim import THREE_STEPS, fast_dtype, polar_factor
from nnunetv2_lightm.optim.polar import SLACK

SHAPES = [(32, 32), (64, 32), (32, 64), (7, 3), (1, 5), (5, 1), (1, 1)]
CPU = torch.device("cpu")
SMALLEST = 0.01  # singular value that THREE_STEPS are made for


def matrices_with(singular_values: torch.Tensor, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix with these singular values, and its polar factor; batches of one."""
    u, _ = torch.linalg.qr(torch.randn(rows, len(singular_values)))
    v, _ = torch.linalg.qr(torch.randn(columns, len(singular_values)))
    return (u * singular_values @ v.mT)[None], (u @ v.mT)[None]


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 0.28), (torch.bfloat16, 0.3)])
def test_three_steps_come_near_the_exact_factor(rows, columns, dtype, tolerance):
    torch.manual_seed(0)
    given, expected = matrices_with(torch.logspace(0, -1, min(rows, columns)), rows, columns)
    found = polar_factor(given, THREE_STEPS, dtype)
    assert found.shape == given.shape and found.dtype == given.dtype
    assert torch.linalg.matrix_norm(found - expected, ord=2) < tolerance


@pytest.mark.parametrize(("rows", "columns"), [(8, 72), (72, 8), (32, 864), (5, 20), (1, 9)])
@pytest.mark.parametrize("smallest", [1e-1, 1e-6])
def test_wide_matrices_take_a_shorter_way_to_the_same_factor(rows, columns, smallest):
    """Kernels: compared with the polynomials themselves in float64, also where half of the singular values are lost."""
    torch.manual_seed(0)
    given, _ = matrices_with(torch.logspace(0, math.log10(smallest), min(rows, columns)), rows, columns)
    expected = given.double() / max(1, float(torch.linalg.matrix_norm(given.double())))
    u, values, vh = torch.linalg.svd(expected, full_matrices=False)
    for a, b, c in THREE_STEPS:
        values = a * values + b * values**3 + c * values**5
    found = polar_factor(given, THREE_STEPS, torch.float32)
    assert torch.linalg.matrix_norm(found.double() - (u * values[:, None, :]) @ vh, ord=2) < 5e-3


def test_singular_values_from_the_smallest_on_come_near_one():
    """Singular values of the matrix divided by its Frobenius norm; 0.9 of it is in the first one."""
    torch.manual_seed(0)
    values = torch.logspace(math.log10(SMALLEST), -1.5, 48)
    values[0] = 0.9
    values[1] = (1 - values.square().sum() + values[1] ** 2).sqrt()
    given, _ = matrices_with(values, 48, 96)
    found = torch.linalg.svdvals(polar_factor(given, THREE_STEPS, torch.float32))
    assert found.min() > 0.7 and found.max() < 1.3


def test_each_of_three_steps_is_the_best_for_what_the_one_before_leaves():
    """A linear program: the largest distance from 1 over the singular values, as small as it gets."""
    low, high = SMALLEST, 1.0
    for a, b, c in THREE_STEPS:
        x = np.concatenate([np.geomspace(low, high, 2000), np.linspace(low, high, 2000)])
        powers, distance = np.stack([x, x**3, x**5], axis=1), -np.ones((len(x), 1))
        upper, lower = np.hstack([powers, distance]), np.hstack([-powers, distance])
        limits, bounds = np.repeat([1.0, -1.0], len(x)), [(None, None)] * 3 + [(0, None)]
        best = linprog([0, 0, 0, 1], np.vstack([upper, lower]), limits, bounds=bounds).x
        np.testing.assert_allclose([a * SLACK, b * SLACK**3, c * SLACK**5], best[:3], rtol=1e-3)
        low, high = 1 - best[3], 1 + best[3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12, 1e30])
def test_the_scale_of_a_matrix_does_not_count(dtype, scale):
    """Gradients that a loss scale has shrunk or enlarged, whose squares are no numbers of float32 any more."""
    torch.manual_seed(0)
    given = torch.randn(3, 16, 24)
    expected = polar_factor(given, THREE_STEPS, dtype)
    torch.testing.assert_close(polar_factor(given * scale, THREE_STEPS, dtype), expected, atol=3e-2, rtol=0)


def test_zero_stays_zero_and_the_others_of_a_batch_do_not_mind():
    torch.manual_seed(0)
    given = torch.randn(2, 8, 8)
    alone = polar_factor(given[1:], THREE_STEPS, torch.float32)
    given[0] = 0
    found = polar_factor(given, THREE_STEPS, torch.float32)
    assert not found[0].any()
    torch.testing.assert_close(found[1:], alone)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx512_bf16": True}, torch.bfloat16), ({"amx_bf16": True}, torch.bfloat16),
     ({"avx512_bf16": False, "avx512_f": True}, torch.float32), ({}, torch.float32)],
)  # fmt: skip
def test_bfloat16_where_the_processor_has_it(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert fast_dtype(CPU) == expected


def test_float32_where_pytorch_cannot_tell(monkeypatch):
    monkeypatch.setattr(torch, "cpu", SimpleNamespace())  # before 2.11
    assert fast_dtype(CPU) == torch.float32
    assert fast_dtype(torch.device("mps")) == torch.float32


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16)])
def test_bfloat16_from_ampere_on(monkeypatch, capability, expected):
    """Older ones emulate it."""
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert fast_dtype(torch.device("cuda")) == expected


@pytest.mark.parametrize(("others", "expected"), [((8, 9), torch.bfloat16), ((7, 5), torch.float32)])
def test_gpus_that_train_together_compute_in_the_same_dtype(monkeypatch, others, expected):
    """Each steps by itself: of factors in different dtypes their weights would drift apart."""
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: others if device == 1 else (8, 6))
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    assert fast_dtype(torch.device("cuda", 0)) == expected
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: False)
    assert fast_dtype(torch.device("cuda", 0)) == torch.bfloat16

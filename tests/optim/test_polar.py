"""The polar factor: near the one of a singular value decomposition, for every shape, scale and precision."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from nnunetv2_lightm.optim import JORDAN, POLAR_EXPRESS, fast_dtype, polar_factor

SHAPES = [(32, 32), (64, 32), (32, 64), (7, 3), (1, 5), (5, 1), (1, 1)]
CPU = torch.device("cpu")


def matrices_with(singular_values: torch.Tensor, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix with these singular values, and its polar factor; batches of one."""
    u, _ = torch.linalg.qr(torch.randn(rows, len(singular_values)))
    v, _ = torch.linalg.qr(torch.randn(columns, len(singular_values)))
    return (u * singular_values @ v.mT)[None], (u @ v.mT)[None]


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_five_steps_come_near_the_exact_factor(rows, columns, dtype):
    """Of singular values that differ by a factor of ten, as the paper's theorem has it: within its interval."""
    torch.manual_seed(0)
    given, expected = matrices_with(torch.logspace(0, -1, min(rows, columns)), rows, columns)
    found = polar_factor(given, POLAR_EXPRESS, dtype)
    assert found.shape == given.shape and found.dtype == given.dtype
    error = torch.linalg.matrix_norm(found - expected, ord=2)
    assert float(error) < (0.12 if dtype == torch.float32 else 0.15)


@pytest.mark.parametrize(("coefficients", "lowest", "highest"), [(JORDAN, 0.6, 1.25), (POLAR_EXPRESS, 0.85, 1.15)])
def test_singular_values_from_a_hundredth_on_come_near_one(coefficients, lowest, highest):
    torch.manual_seed(0)
    given, _ = matrices_with(torch.logspace(0, -2, 48), 48, 96)
    values = torch.linalg.svdvals(polar_factor(given, coefficients, torch.float32))
    assert lowest < values.min() and values.max() < highest


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12])
def test_the_scale_of_a_matrix_does_not_count(dtype, scale):
    """Gradients that a loss scale has shrunk or enlarged. A power of two is exact, ten times one nearly."""
    torch.manual_seed(0)
    given = torch.randn(3, 16, 24)
    expected = polar_factor(given, POLAR_EXPRESS, dtype)
    torch.testing.assert_close(polar_factor(given * scale, POLAR_EXPRESS, dtype), expected, atol=2e-2, rtol=0)


def test_zero_stays_zero_and_the_others_of_a_batch_do_not_mind():
    torch.manual_seed(0)
    given = torch.randn(2, 8, 8)
    alone = polar_factor(given[1:], POLAR_EXPRESS, torch.float32)
    given[0] = 0
    found = polar_factor(given, POLAR_EXPRESS, torch.float32)
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

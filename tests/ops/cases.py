"""Inputs for the selective scan, its results by name, and their comparison: shared by the tests of the backends."""

from __future__ import annotations

import numpy as np
import torch

from nnunetv2_lightm.ops import selective_scan

# Largest error allowed, relative to the largest value of the tensor.
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3}
NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
OPTIONAL = ("D", "z", "delta_bias")
VECTORS = [f"scan_{i}" for i in range(6)]


def make_inputs(batch, length, d_inner, d_state, *, without=(), dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    inputs = {
        "u": normal(batch, length, d_inner),
        "delta": 0.5 * normal(batch, length, d_inner),
        "A": -torch.rand((d_inner, d_state), generator=generator, dtype=torch.float64) * d_state - 0.1,
        "B": normal(batch, length, d_state),
        "C": normal(batch, length, d_state),
        "D": normal(d_inner),
        "z": normal(batch, length, d_inner),
        "delta_bias": 0.5 * normal(d_inner),
    }
    return {name: None if name in without else t.to(dtype).requires_grad_() for name, t in inputs.items()}


def run(inputs, backend, *, softplus=True, grad_y=None, grad_last=None):
    """Outputs, last state and gradients by name, in float64."""
    y, last = selective_scan(**inputs, delta_softplus=softplus, return_last_state=True, backend=backend)
    given = {name: t for name, t in inputs.items() if t is not None}
    grad_y = torch.ones_like(y) if grad_y is None else grad_y.to(y.dtype)
    outputs, grads_out = [y], [grad_y]
    if grad_last is not None:
        outputs.append(last)
        grads_out.append(grad_last.to(last.dtype))
    grads = torch.autograd.grad(outputs, list(given.values()), grads_out)
    result = {"y": y.detach(), "last_state": last.detach()}
    for (name, tensor), grad in zip(given.items(), grads, strict=True):
        assert grad.dtype == tensor.dtype and grad.shape == tensor.shape, name
        result[f"grad_{name}"] = grad
    return {name: t.double() for name, t in result.items()}


def assert_close(result, expected, tolerance):
    assert result.keys() == expected.keys()
    for name, value in expected.items():
        scale = value.abs().max().clamp_min(1e-3) if value.numel() else torch.ones(())
        error = (result[name] - value).abs()
        worst = float(error.max() / scale) if error.numel() else 0.0
        assert worst <= tolerance, f"{name}: relative error {worst:.2e} above {tolerance:.0e}"
        assert not error.isnan().any(), name


def grads_for(inputs, seed=1):
    generator = torch.Generator().manual_seed(seed)
    batch, length, d_inner = inputs["u"].shape
    d_state = inputs["A"].shape[1]
    return {
        "grad_y": torch.randn((batch, length, d_inner), generator=generator, dtype=torch.float64),
        "grad_last": torch.randn((batch, d_inner, d_state), generator=generator, dtype=torch.float64),
    }


def load_vector(data_root, vector, dtype):
    """Inputs, options and expected results of one of the reference vectors, in our layout."""
    (file,) = (data_root / "mamba_reference").glob(f"{vector}_*.npz")
    stored = {k: torch.from_numpy(np.asarray(v)) for k, v in np.load(file).items()}

    def ours(name):  # Mamba's layout is (batch, channels, length)
        tensor = stored[name]
        return tensor.transpose(1, 2) if tensor.ndim == 3 and "last" not in name else tensor

    inputs = {n: ours(n).to(dtype).requires_grad_() if n in stored else None for n in NAMES}
    expected = {"y": ours("y"), "last_state": ours("last_state")}
    expected |= {f"grad_{n}": ours(f"grad_{n}") for n in NAMES if n in stored}
    return inputs, {"softplus": bool(stored["delta_softplus"]), "grad_y": ours("grad_y")}, expected

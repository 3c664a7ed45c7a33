"""The selective scan's test cases: inputs, results by name, their comparison, and how close is close enough."""

from __future__ import annotations

import itertools
import os

import numpy as np
import torch

from nnunetv2_lightm.ops import backend_table, selective_scan

# Largest error allowed, relative to the largest value of the tensor: of the scan, of compiled layers, of any operator's
# random calls, and of layers under autocast on Triton's kernels.
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3}
LAYER_TOLERANCES = {torch.float64: 1e-12, torch.float32: 3e-5}
CALL_TOLERANCES = {torch.float64: 1e-8, torch.float32: 2e-4, torch.bfloat16: 3e-2, torch.float16: 6e-3}
AUTOCAST_TOLERANCES = {torch.float16: 5e-3, torch.bfloat16: 4e-2}
NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
OPTIONAL = ("D", "z", "delta_bias")
SUBSETS = [without for count in range(4) for without in itertools.combinations(OPTIONAL, count)]
VECTORS = [f"scan_{i}" for i in range(6)]
# Triton's interpreter takes a tenth of a second for a token: its chunks, and with them the cases, are shorter.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
# Tokens of a chunk, in which the backends cut a sequence.
CHUNK = 8 if INTERPRETED else 64
# Tokens of many chunks, the last not whole.
LONG = 44 if INTERPRETED else 1000
# Channels that do not fill the last vector, nor, of 9 states and more, Triton's last tile.
WIDE = 17 if INTERPRETED else 33
USABLE = [status.name for status in backend_table(("cpu",)) if status.usable]


def make_inputs(batch, length, d_inner, d_state, *, without=(), dtype=torch.float64, seed=0, positive_steps=False):
    """Inputs by name, leaves of autograd's graph; positive_steps: without a softplus too."""
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
    if positive_steps:
        inputs |= {name: inputs[name].abs() for name in ("delta", "delta_bias")}
    return {name: None if name in without else t.to(dtype).requires_grad_() for name, t in inputs.items()}


def cast(inputs, dtype):
    """Leaves with the same values, as far as the dtype holds them."""
    return {name: None if t is None else t.detach().to(dtype).requires_grad_() for name, t in inputs.items()}


def run(inputs, backend, *, softplus=True, grad_y=None, grad_last=None, only=NAMES):
    """Outputs, last state and the gradients of the inputs named in `only`, by name, in float64."""
    wanted = {name: t for name, t in inputs.items() if t is not None and name in only}
    leaves = {name: t if t is None or name in wanted else t.detach() for name, t in inputs.items()}
    y, last = selective_scan(**leaves, delta_softplus=softplus, return_last_state=True, backend=backend)
    grad_y = torch.ones_like(y) if grad_y is None else grad_y.to(y.dtype)
    outputs, grads_out = [y], [grad_y]
    if grad_last is not None:
        outputs.append(last)
        grads_out.append(grad_last.to(last.dtype))
    grads = torch.autograd.grad(outputs, list(wanted.values()), grads_out)
    result = {"y": y.detach(), "last_state": last.detach()}
    for (name, tensor), grad in zip(wanted.items(), grads, strict=True):
        assert grad.dtype == tensor.dtype and grad.shape == tensor.shape, name
        result[f"grad_{name}"] = grad
    return {name: t.double() for name, t in result.items()}


def assert_close(result, expected, tolerance):
    """Every tensor within a share of its largest element; nothing is NaN."""
    assert result.keys() == expected.keys()
    for name, value in expected.items():
        scale = value.abs().max().clamp_min(1e-3) if value.numel() else torch.ones(())
        error = (result[name] - value).abs()
        worst = float(error.max() / scale) if error.numel() else 0.0
        assert worst <= tolerance, f"{name}: relative error {worst:.2e} above {tolerance:.0e}"


def grads_for(inputs, seed=1):
    """Gradients of both outputs, for :func:`run`."""
    generator = torch.Generator().manual_seed(seed)
    batch, length, d_inner = inputs["u"].shape
    d_state = inputs["A"].shape[1]
    return {
        "grad_y": torch.randn((batch, length, d_inner), generator=generator, dtype=torch.float64),
        "grad_last": torch.randn((batch, d_inner, d_state), generator=generator, dtype=torch.float64),
    }


def compare(inputs, backend, tolerance, **options):
    """A backend with the specification, both outputs and all gradients; the specification in float64."""
    options |= {name: grad for name, grad in grads_for(inputs).items() if name not in options}
    expected = run(cast(inputs, torch.float64), "reference", **options)
    assert_close(run(inputs, backend, **options), expected, tolerance)


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

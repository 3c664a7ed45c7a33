"""The check a backend must pass before it is timed, in the same run: the values and gradients of the reference."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nnunetv2_lightm.ops import selective_scan, selective_scan_reference
from nnunetv2_lightm.ops.backends import ENVIRONMENT_VARIABLE, REFERENCE

# Relative to the largest value of the tensor; the scan is in float32, its reference here in float64.
SCAN_TOLERANCE = 1e-4
# A whole network and its gradients, float32 on both sides.
NETWORK_TOLERANCE = 1e-3


@contextmanager
def backend(name: str | None) -> Iterator[None]:
    """Force a backend for everything inside; None: leave it as it is."""
    before = os.environ.get(ENVIRONMENT_VARIABLE)
    if name is not None:
        os.environ[ENVIRONMENT_VARIABLE] = name
    try:
        yield
    finally:
        if name is not None:
            del os.environ[ENVIRONMENT_VARIABLE]
            if before is not None:
                os.environ[ENVIRONMENT_VARIABLE] = before


def scan_inputs(
    batch: int, length: int, d_inner: int, d_state: int, dtype: torch.dtype, device: str = "cpu"
) -> dict[str, Tensor]:
    """Inputs as a Mamba layer has them at the start of a training; no gate z. On a CPU they are the same in all
    dtypes; elsewhere they are drawn in theirs, in less time."""
    generator = torch.Generator(device).manual_seed(0)
    drawn = {"generator": generator, "device": device, "dtype": torch.float64 if device == "cpu" else dtype}

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, **drawn).to(dtype)

    A = -torch.arange(1, d_state + 1, dtype=dtype, device=device).repeat(d_inner, 1)
    return {
        "u": normal(batch, length, d_inner),
        "delta": 0.5 * normal(batch, length, d_inner),
        "A": A,
        "B": normal(batch, length, d_state),
        "C": normal(batch, length, d_state),
        "D": torch.ones(d_inner, dtype=dtype, device=device),
        "delta_bias": normal(d_inner) - 4,
    }


def scan_failure(name: str) -> str | None:
    """How the backend's selective scan differs from the reference on a small problem; None: it does not."""
    exact = scan_inputs(2, 301, 37, 16, torch.float64)
    exact["z"] = torch.randn(exact["u"].shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    weights = torch.randn(exact["u"].shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    expected = _values_and_gradients(lambda **a: selective_scan_reference(**a)[0], exact, weights)
    single = {key: tensor.float() for key, tensor in exact.items()}
    computed = _values_and_gradients(lambda **a: selective_scan(**a, backend=name), single, weights.float())
    return _difference(computed, expected, SCAN_TOLERANCE)


def network_failure(network: nn.Module, x: Tensor) -> str | None:
    """How the network's output and gradients differ from those with the reference scan; None: they do not."""
    was_training = network.training
    network.eval()
    with backend(REFERENCE):
        expected = _network_values_and_gradients(network, x)
    computed = _network_values_and_gradients(network, x)
    with torch.inference_mode():
        computed["output in inference mode"], expected["output in inference mode"] = network(x), expected["output"]
    network.train(was_training)
    return _difference(computed, expected, NETWORK_TOLERANCE)


def _values_and_gradients(scan, inputs: dict[str, Tensor], weights: Tensor) -> dict[str, Tensor]:
    leaves = {key: tensor.detach().requires_grad_() for key, tensor in inputs.items()}
    y = scan(**leaves, delta_softplus=True)
    grads = torch.autograd.grad((y * weights).sum(), list(leaves.values()))
    return {"y": y.detach(), **{f"gradient of {key}": grad for key, grad in zip(leaves, grads)}}


def _network_values_and_gradients(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*network.named_parameters(), strict=True)
    y = network(x)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(4))
    grads = torch.autograd.grad((y * weights).mean(), parameters)
    return {"output": y.detach(), **{f"gradient of {name}": grad for name, grad in zip(names, grads)}}


def _difference(computed: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> str | None:
    for name, reference in expected.items():
        error = (computed[name].double() - reference.double()).abs().max() / reference.double().abs().max()
        # Not `error > tolerance`: NaN would pass.
        if not error <= tolerance:
            return f"reference check failed: {name} differs by {float(error):.1e} of its largest value"
    return None

"""The whole network under PyTorch's transforms, tracing and export."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad

from nnunetv2_lightm.networks import LightMUNet, LightMUNetReleased
from nnunetv2_lightm.ops import backend_table
from nnunetv2_lightm.ops.backends import ENVIRONMENT_VARIABLE

BACKENDS = [status.name for status in backend_table(("cpu",)) if status.usable and status.considered]


@pytest.fixture(params=BACKENDS)
def network(request, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, request.param)
    torch.manual_seed(0)
    small = {"features": 16, "d_state": 2, "rvm_layers": (1, 1), "bottleneck_rvm_layers": 1}
    return LightMUNet(1, 2, spatial_dims=2, **small).double()


@pytest.fixture
def image():
    return torch.randn(2, 1, 6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_forward_mode(network, image):
    tangent = torch.randn_like(image)
    step = 1e-6
    with torch.no_grad():
        expected = (network(image + step * tangent) - network(image - step * tangent)) / (2 * step)
        with forward_ad.dual_level():
            by_level = forward_ad.unpack_dual(network(forward_ad.make_dual(image, tangent))).tangent
    _, by_transform = torch.func.jvp(network, (image,), (tangent,))
    assert expected.abs().max() > 1e-2
    for got in (by_level, by_transform):
        torch.testing.assert_close(got.detach(), expected, rtol=1e-5, atol=1e-6)


def test_per_sample_gradients(network, image):
    weights = {name: p.detach() for name, p in network.named_parameters()}

    def loss(weights, sample):
        return torch.func.functional_call(network, weights, (sample[None],)).square().sum()

    each = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, image)
    network(image).square().sum().backward()
    for name, p in network.named_parameters():
        torch.testing.assert_close(each[name].sum(0), p.grad, rtol=1e-6, atol=1e-8)


def test_gradient_penalty(network, image):
    """The gradient of a gradient, as regularisers of the input's gradient have it."""

    def penalty(image):
        (gradient,) = torch.autograd.grad(network(image).square().sum(), image, create_graph=True)
        return gradient.square().sum()

    (got,) = torch.autograd.grad(penalty(image.requires_grad_()), image)
    tangent = torch.randn_like(image)
    ends = [penalty((image.detach() + s * tangent).requires_grad_()).detach() for s in (1e-5, -1e-5)]
    torch.testing.assert_close((got * tangent).sum(), (ends[0] - ends[1]) / 2e-5, rtol=1e-5, atol=1e-6)
    penalty(image).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters() if p.ndim > 1)


@pytest.mark.parametrize("kind", [LightMUNet, LightMUNetReleased])
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("backend", BACKENDS)
def test_trace_is_refused_in_a_sentence(kind, backend, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, backend)
    with pytest.raises(RuntimeError, match=r"torch.jit.trace cannot record .* use torch.export.export"):
        torch.jit.trace(kind(1, 2, spatial_dims=2, features=16), torch.randn(1, 1, 16, 16))


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_export_for_any_batch(network, image, training):
    network.train(training)
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(network, (image,), dynamic_shapes=({0: batch},))
    for size in (1, 2, 5):
        other = torch.randn(size, 1, 6, 5, dtype=torch.float64)
        torch.testing.assert_close(exported.module()(other), network(other))


@pytest.mark.parametrize("recorded", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["no_grad", "gradients"])
def test_export_for_any_image(network, recorded):
    """Batch and spatial sizes, from an image that no stage shrinks to one voxel or, where gradients are recorded, to
    one checkpoint of the scan: PyTorch takes a size of 1 for a constant."""
    free = {0: torch.export.Dim("batch", min=1, max=64), 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    image = torch.randn(2, 1, *((72, 88) if recorded else (32, 48)), dtype=torch.float64)
    with torch.set_grad_enabled(recorded):
        exported = torch.export.export(network.eval(), (image,), dynamic_shapes=(free,)).module()
        for shape in ((1, 1, 72, 80), (3, 1, 89, 97)) if recorded else ((1, 1, 32, 32), (5, 1, 40, 57)):
            other = torch.randn(shape, dtype=torch.float64)
            logits, expected = exported(other), network(other)
            torch.testing.assert_close(logits, expected)
            if recorded:
                weights = ([*n.parameters()] for n in (exported, network))
                grads = [torch.autograd.grad(y.square().sum(), w) for y, w in zip((logits, expected), weights)]
                torch.testing.assert_close(*grads)

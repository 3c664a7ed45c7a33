"""The compiled depthwise convolutions and their surroundings against PyTorch's operators, outputs and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from nnunetv2_lightm.ops import depthwise_conv, depthwise_head, depthwise_op, depthwise_stem
from nnunetv2_lightm.ops.backends import cpu_native

REASON = cpu_native.not_supported_reason("cpu")
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"cpu_native: {REASON}")

SPATIAL = [(5, 6, 7), (1, 1, 1), (2, 1, 33), (3, 9, 8), (6, 7), (1, 40), (17, 16)]


def parameters(channels, dims, points=None, head=False):
    """Parameters of the convolution and, with points, of the pointwise layer."""
    made = [torch.randn(channels, 1, *(3,) * dims), torch.randn(channels)]
    if points:
        made += [torch.randn(points, channels), torch.randn(points)] if head else []
        made += [] if head else [torch.randn(channels, points), torch.randn(channels)]
    return [p.double().requires_grad_() for p in made]


def plain_conv(x, weight, bias):
    op = F.conv2d if x.ndim == 4 else F.conv3d
    return op(x.movedim(-1, 1), weight, bias, padding=1, groups=x.shape[-1]).movedim(1, -1)


def plain_stem(image, weight, bias, point_weight, point_bias):
    return plain_conv(F.linear(image.movedim(1, -1), point_weight, point_bias), weight, bias)


def plain_head(x, size, weight, bias, point_weight, point_bias):
    mode = "bilinear" if x.ndim == 4 else "trilinear"
    x = F.interpolate(x.movedim(-1, 1), size=size, mode=mode).movedim(1, -1)
    return F.linear(plain_conv(x, weight, bias), point_weight, point_bias).movedim(-1, 1)


def assert_same(got, expected, inputs, tolerance=1e-12):
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance * expected.abs().max().item())
    weights = torch.linspace(0, 9, expected.numel(), dtype=expected.dtype).cos().view(expected.shape)
    for one, other in zip(
        torch.autograd.grad(got, inputs, weights), torch.autograd.grad(expected, inputs, weights), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * other.abs().max().item())


@pytest.fixture(params=[1, 3])
def one_or_more_threads(request, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: request.param)


@pytest.mark.usefixtures("instruction_set", "one_or_more_threads")
@pytest.mark.parametrize("spatial", SPATIAL)
def test_conv(spatial):
    made = parameters(32, len(spatial))
    x = torch.randn(2, *spatial, 32, dtype=torch.float64, requires_grad=True)
    assert_same(depthwise_conv(x, *made), plain_conv(x, *made), [x, *made])


@pytest.mark.usefixtures("instruction_set", "one_or_more_threads")
@pytest.mark.parametrize("input_channels", [1, 4])
@pytest.mark.parametrize("spatial", SPATIAL)
def test_stem(spatial, input_channels):
    made = parameters(16, len(spatial), input_channels)
    image = torch.randn(2, input_channels, *spatial, dtype=torch.float64)
    assert_same(depthwise_stem(image, made), plain_stem(image, *made), made)


@pytest.mark.usefixtures("instruction_set", "one_or_more_threads")
@pytest.mark.parametrize("num_classes", [2, 61])
@pytest.mark.parametrize("spatial", SPATIAL)
@pytest.mark.parametrize("growth", [(0, 0, 0), (1, 0, 3), (5, 6, 7)])
def test_head(spatial, growth, num_classes):
    size = [s + g for s, g in zip(spatial, growth)]
    made = parameters(16, len(spatial), num_classes, head=True)
    x = torch.randn(2, *spatial, 16, dtype=torch.float64, requires_grad=True)
    assert_same(depthwise_head(x, size, made), plain_head(x, size, *made), [x, *made])


def test_float32():
    made = [p.detach().float().requires_grad_() for p in parameters(16, 3, 3, head=True)]
    x = torch.randn(1, 5, 6, 7, 16, requires_grad=True)
    assert_same(depthwise_head(x, (10, 12, 15), made), plain_head(x, (10, 12, 15), *made), [x, *made], 1e-4)


def test_half_precision_is_computed_in_float32():
    made = parameters(16, 2)
    x = torch.randn(1, 5, 6, 16).bfloat16()
    y = depthwise_conv(x, *(p.float() for p in made))
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, depthwise_conv(x.float(), *(p.float() for p in made)).bfloat16())


def test_downsampling_head():
    made = parameters(16, 3, 3, head=True)
    x = torch.randn(1, 7, 6, 9, 16, dtype=torch.float64, requires_grad=True)
    assert_same(depthwise_head(x, (3, 6, 4), made), plain_head(x, (3, 6, 4), *made), [x, *made])


def test_nan_reaches_its_neighbours_only():
    x = torch.randn(1, 5, 6, 7, 16)
    x[0, 2, 3, 0, 5] = float("nan")
    y = depthwise_conv(x, *(p.float() for p in parameters(16, 3)))
    assert y[0, 1:4, 2:5, :2, 5].isnan().all() and y.isnan().sum() == 3 * 3 * 2


def test_the_image_gets_no_gradient():
    made = parameters(16, 2, 1)
    image = torch.randn(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    with pytest.raises(RuntimeError, match="no gradient of the image"):
        depthwise_stem(image, made).sum().backward()


@pytest.mark.parametrize("product_dtype", [None, torch.bfloat16], ids=str)
@pytest.mark.parametrize("surroundings", [0, 2])
def test_opcheck(surroundings, product_dtype):
    made = [p.detach().float().requires_grad_() for p in parameters(16, 2, 3, head=True)]
    x = torch.randn(1, 5, 6, 16, requires_grad=True)
    made = made[:2] if surroundings == 0 else made
    torch.library.opcheck(depthwise_op, (surroundings, x, [5, 6], made, "cpu_native", product_dtype))

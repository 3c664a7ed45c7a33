"""What the layers on Triton's kernels have to do on a device: the CPU, under Triton's interpreter, or a GPU.

The oracle is in float64: the compiled operators of the CPU where they are, else the specification.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from nnunetv2_lightm.layers import RVMLayer
from nnunetv2_lightm.ops import depthwise_op, rvm_layer_op, select_backend, upsample_op
from nnunetv2_lightm.ops.backends import cpu_native, triton_gpu
from nnunetv2_lightm.ops.backends.native_depthwise import HEAD, PLAIN, STEM

from .cases import AUTOCAST_TOLERANCES

# shape (batch, *spatial, channels), output channels, pooling, options. The interpreter takes milliseconds a token.
LAYERS = {
    "3d, two images, 1x2x2 pooling": ((2, 3, 4, 3, 6), 5, (1, 2, 2), {"d_state": 3}),
    "3d, odd": ((1, 5, 3, 3, 16), 16, (2, 2, 2), {"d_state": 5}),
    "2d, long rows": ((1, 3, 41, 4), 8, None, {"d_state": 2}),
    "2d, delta of rank 3": ((1, 3, 5, 48), 16, None, {"d_state": 3}),
    "2d, odd": ((2, 5, 3, 7), 3, (2, 2), {"d_state": 1}),
}
MAPS = {"3d": (1, 5, 3, 4, 6), "3d, thin": (1, 2, 1, 9, 3), "3d, deep": (1, 9, 2, 1, 2), "2d": (2, 18, 5, 5)}


def oracle(layer: RVMLayer) -> str:
    fits = cpu_native.not_supported_reason("cpu") is None
    channels = (*layer.scale.shape, *layer.projection.bias.shape)
    return cpu_native.NAME if fits and not any(count % 16 for count in channels) else "torch_chunked"


def run_layer(layer, x, pool, backend, product_dtype=None):
    """Output and gradients by name, in float64 on the CPU."""
    x = x.detach().clone().requires_grad_()
    given = [p.detach().requires_grad_() for p in layer._parameters_of_operator()]
    y = rvm_layer_op(x, given, list(pool or [1] * (x.ndim - 2)), True, backend, product_dtype)[0]
    weights = torch.linspace(0, 9, y.numel(), dtype=torch.float64).cos().view(y.shape)
    grads = torch.autograd.grad(y, [x, *given], weights.to(y))
    return {"y": y.detach().double().cpu(), **{f"gradient {i}": g.double().cpu() for i, g in enumerate(grads)}}


def check_layer(case: str, device: str, dtype: torch.dtype) -> None:
    shape, out_channels, pool, options = LAYERS[case]
    torch.manual_seed(0)
    layer = RVMLayer(shape[-1], out_channels, len(shape) - 2, **options).double()
    x = torch.randn(shape, dtype=torch.float64)
    expected = run_layer(layer, x, pool, oracle(layer))
    if dtype in AUTOCAST_TOLERANCES:
        found = run_layer(layer.float().to(device), x.float().to(device), pool, triton_gpu.NAME, dtype)
    else:
        found = run_layer(layer.to(device, dtype), x.to(device, dtype), pool, triton_gpu.NAME)
    assert_near(found, expected, AUTOCAST_TOLERANCES.get(dtype, 1e-9 if dtype == torch.float64 else 1e-4))


def check_depthwise(case: str, device: str, dtype: torch.dtype) -> None:
    """All three kinds, and the upsampling."""
    shape = MAPS[case]
    dims, channels = len(shape) - 2, shape[-1]
    torch.manual_seed(0)
    x, image = torch.randn(shape, dtype=torch.float64), torch.randn(shape[0], 2, *shape[1:-1], dtype=torch.float64)
    conv = [torch.randn(channels, 1, *(3,) * dims), torch.randn(channels)]
    stem, head = [torch.randn(channels, 2), torch.randn(channels)], [torch.randn(3, channels), torch.randn(3)]
    size = [2 * shape[1] - 1, *(length + 1 for length in shape[2:-1])]
    kinds = ((PLAIN, x, list(shape[1:-1]), []), (STEM, image, list(shape[1:-1]), stem), (HEAD, x, size, head))
    for kind, given, out_size, point in kinds:
        made = [p.double() for p in (*conv, *point)]
        expected = run_depthwise(kind, given, out_size, made, "torch_chunked")
        here = [t.to(device, torch.float32 if dtype in AUTOCAST_TOLERANCES else dtype) for t in (given, *made)]
        product = dtype if dtype in AUTOCAST_TOLERANCES and kind != STEM else None
        found = run_depthwise(kind, here[0], out_size, here[1:], triton_gpu.NAME, product)
        assert_near(found, expected, AUTOCAST_TOLERANCES.get(dtype, 1e-11 if dtype == torch.float64 else 1e-5))


def run_depthwise(kind, x, size, parameters, backend, product_dtype=None):
    inputs = [t.detach().requires_grad_() for t in parameters]
    x = x.detach().requires_grad_(kind != STEM)
    y = depthwise_op(kind, x, size, inputs, backend, product_dtype)
    weights = torch.linspace(0, 9, y.numel(), dtype=torch.float64).cos().view(y.shape)
    grads = torch.autograd.grad(y, inputs if kind == STEM else [x, *inputs], weights.to(y))
    return {"y": y.detach().double().cpu(), **{f"gradient {i}": g.double().cpu() for i, g in enumerate(grads)}}


def check_upsampling(device: str, dtype: torch.dtype) -> None:
    """Values of PyTorch, and the same gradient twice."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64)
    wide = x.clone().requires_grad_()
    expected = F.interpolate(wide.movedim(-1, 1), size=(7, 8, 9), mode="trilinear").movedim(1, -1)
    weights = torch.randn_like(expected)
    found = []
    for _ in range(2):
        given = x.to(device, dtype).requires_grad_()
        y = upsample_op(given, [7, 8, 9])
        found.append((y.detach(), torch.autograd.grad(y, given, weights.to(y))[0]))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    (expected_grad,) = torch.autograd.grad(expected, wide, weights)
    pairs = {"y": (found[0][0], expected.detach()), "gradient": (found[0][1], expected_grad)}
    tolerance = AUTOCAST_TOLERANCES.get(dtype, 1e-5)
    for name, (one, other) in pairs.items():
        assert_near({name: one.double().cpu()}, {name: other}, tolerance)


def assert_near(found, expected, tolerance):
    """Within a share of the largest element; nothing is NaN."""
    for name, value in expected.items():
        error = (found[name] - value).abs().max() / value.abs().max().clamp_min(1e-6)
        assert error <= tolerance, f"{name}: {float(error):.1e} above {tolerance:.0e}"


def triton_runs(device: str) -> bool:
    return select_backend(device, triton_gpu.NAME) == triton_gpu.NAME

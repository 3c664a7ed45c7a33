"""The layers that recompute on any device, against PyTorch's operators: outputs, gradients, slabs, dtypes, memory."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

from benchmarks.speed.harness.cuda_autocast import cuda_rules
from nnunetv2_lightm.layers import RVMLayer
from nnunetv2_lightm.networks import LightMUNet
from nnunetv2_lightm.ops import depthwise_op, rvm_layer, rvm_layer_op, upsample_op
from nnunetv2_lightm.ops.backends import ENVIRONMENT_VARIABLE
from nnunetv2_lightm.ops.backends.native_depthwise import HEAD, PLAIN, STEM
from nnunetv2_lightm.ops.backends.recomputing import pieces, slabs

from .test_depthwise import SPATIAL, assert_same, parameters, plain_conv, plain_head, plain_stem
from .test_rvm_layer import CASES, assert_close, layer_and_input, results

SCAN = "torch_chunked"
# The compiled layer has none of these: channels that are no multiple of 16.
UNEVEN = {"3d uneven channels": ((1, 7, 9, 5, 13), 11, (2, 1, 2), {}), "2d three channels": ((2, 8, 9, 3), 1, None, {})}


@pytest.fixture(params=[1 << 24, 3000, 1], ids=["whole", "slabs", "planes"])
def slab_elements(request, monkeypatch):
    """Whole batches at once, some planes at a time, as few planes as the pooling takes."""
    monkeypatch.setattr(slabs, "SLAB_ELEMENTS", request.param)
    return request.param


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("case", [*(c for c in CASES if "slab" not in c), *UNEVEN])
def test_rvm_layer_equals_the_specification(case, slab_elements, monkeypatch):
    monkeypatch.setitem(CASES, case, (CASES | UNEVEN)[case])
    layer, x, pool = layer_and_input(case, torch.float64)
    expected = results(layer, x, pool, monkeypatch, "reference")
    assert_close(results(layer, x, pool, monkeypatch, SCAN), expected, 1e-12)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("spatial", SPATIAL)
def test_depthwise_convolutions_equal_pytorchs(spatial, slab_elements):
    made = parameters(5, len(spatial))
    x = torch.randn(2, *spatial, 5, dtype=torch.float64, requires_grad=True)
    assert_same(depthwise_op(PLAIN, x, list(spatial), made, SCAN), plain_conv(x, *made), [x, *made])
    made = parameters(6, len(spatial), 2)
    image = torch.randn(2, 2, *spatial, dtype=torch.float64)
    assert_same(depthwise_op(STEM, image, list(spatial), made, SCAN), plain_stem(image, *made), made)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("growth", [(0, 0, 0), (1, 0, 3), (5, 6, 7), (-1, -2, 0)])
@pytest.mark.parametrize("spatial", SPATIAL)
def test_head_and_upsampling_equal_pytorchs(spatial, growth, slab_elements):
    size = [max(1, s + g) for s, g in zip(spatial, growth)]
    made = parameters(7, len(spatial), 3, head=True)
    x = torch.randn(2, *spatial, 7, dtype=torch.float64, requires_grad=True)
    assert_same(depthwise_op(HEAD, x, size, made, SCAN), plain_head(x, size, *made), [x, *made])
    mode = "bilinear" if x.ndim == 4 else "trilinear"
    expected = F.interpolate(x.movedim(-1, 1), size=size, mode=mode).movedim(1, -1)
    assert_same(upsample_op(x, size), expected, [x])


def test_an_infinity_spreads_to_its_neighbours_alone(monkeypatch):
    """Interpolation along the slabs is a product, in which 0 times infinity would be NaN everywhere."""
    monkeypatch.setattr(slabs, "SLAB_ELEMENTS", 1)
    made = parameters(2, 3, 3, head=True)
    x = torch.randn(1, 9, 4, 3, 2, dtype=torch.float64)
    x[0, 4, 1, 1, 0] = torch.inf
    found = depthwise_op(HEAD, x, [18, 8, 6], made, SCAN)
    assert found[:, :, :4].isfinite().all() and found[:, :, 14:].isfinite().all()
    assert not found[:, :, 9].isfinite().all()


def test_pooling_keeps_nan_and_the_first_of_equals():
    x = torch.tensor([1.0, 3.0, 3.0, 2.0, torch.nan, 0.0]).view(1, 6, 1, 1)
    best, place = torch.empty(1, 2, 1, 1), torch.empty(1, 2, 1, 1, dtype=torch.uint8)
    pieces.max_pool(x, (3, 1), best, place)
    assert best.flatten()[0] == 3 and best.flatten()[1].isnan()
    assert place.flatten().tolist() == [1, 1]
    grad = pieces.max_pool_backward(torch.ones_like(best), place, (3, 1), x.shape, x.dtype, False)
    assert grad.flatten().tolist() == [0, 1, 0, 0, 1, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_under_autocast_as_pytorchs_operators(dtype, monkeypatch):
    """The dtype of the output and its error are those of the layer that is put together from PyTorch's operators."""
    layer, x, pool = layer_and_input("3d pooled, odd", torch.float32)
    exact = results(layer, x, pool, monkeypatch, "reference")
    with cuda_rules(), torch.autocast("cpu", dtype):
        found = results(layer, x, pool, monkeypatch, SCAN)
        composed = results(layer, x, pool, monkeypatch, "reference")
    assert found["y"].dtype == composed["y"].dtype == dtype
    for name, value in exact.items():
        error, theirs = ((t[name].float() - value).abs().max() / value.abs().max() for t in (found, composed))
        assert error <= max(2 * theirs, 4 * torch.finfo(dtype).eps), name


def test_input_and_scan_beyond_float16(monkeypatch):
    """The residual and the scan stay in float32 inside; a norm follows both."""
    layer, x, _ = layer_and_input("3d rows left over", torch.float32)
    with torch.no_grad():
        layer.vssm.ssms[0].x_proj.weight[layer.vssm.ssms[0].dt_rank :].mul_(300)
        x[0, 1, 2, 3] = 1e6
    expected = results(layer, x, None, monkeypatch, "reference")
    with torch.autocast("cpu", torch.float16):
        found = results(layer, x, None, monkeypatch, SCAN)
    assert found["y"].isfinite().all()
    assert (found["y"].float() - expected["y"]).abs().max() <= 2e-2 * expected["y"].abs().max()


def test_the_stem_computes_in_float32_under_autocast():
    made = [p.detach().float().requires_grad_() for p in parameters(16, 3, 1)]
    image = torch.randn(1, 1, 6, 6, 6)
    image[0, 0, 2, 3, 4] = 1e6
    expected = depthwise_op(STEM, image, [6, 6, 6], made, SCAN)
    with torch.autocast("cpu", torch.float16):
        found = depthwise_op(STEM, image, [6, 6, 6], made, SCAN)
        grads = torch.autograd.grad(found.sum(), made)
    assert torch.equal(found, expected) and found.dtype == torch.float32
    assert all(grad.isfinite().all() for grad in grads)


def test_inference_keeps_nothing():
    layer, x, pool = layer_and_input("3d pooled, odd", torch.float32)
    _, checkpoints, argmax = rvm_layer_op(x, layer._parameters_of_operator(), list(pool), False, SCAN)
    assert checkpoints.numel() == argmax.numel() == 0


def test_what_is_saved(monkeypatch):
    """The layer's input, a state every 64 tokens, and one byte for each maximum."""
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, SCAN)
    layer, x = RVMLayer(16, 32, 3), torch.randn(1, 8, 16, 16, 16)
    parameters = {p.data_ptr() for p in layer.parameters()}
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        layer(x, (2, 2, 2))
    sizes = {t.data_ptr(): t.nbytes for t in saved if t.data_ptr() not in parameters}
    voxels = 8 * 16 * 16
    small = 4 * 32 * 16 + 100  # -exp(A_log)
    assert sum(sizes.values()) <= voxels * (16 * 4 + 32 * 16 * 4 / 64 + 32 / 8) + 2 * small


def peak_beyond(run):
    """Bytes that the CPU's allocator has given out at most during the call."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = run()
    allocated = peak = 0
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        allocated += event.nbytes()
        peak = max(peak, allocated)
    return peak, result


def test_transients_do_not_grow_with_the_image(monkeypatch):
    monkeypatch.setattr(slabs, "SLAB_ELEMENTS", 8 * 16 * 16 * 16)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, SCAN)
    layer = RVMLayer(16, 16, 3, d_state=2)
    transients = []
    for depth in (16, 48):
        x = torch.randn(1, depth, 16, 16, 16, requires_grad=True)
        given = x.nbytes
        forward, y = peak_beyond(lambda x=x: layer(x, (2, 2, 2)))
        backward, _ = peak_beyond(y.sum().backward)
        transients.append((forward - y.nbytes - given * 2 * 2 / 64, backward - given))
    assert transients[1][0] <= 1.1 * transients[0][0]
    assert transients[1][1] <= 1.1 * transients[0][1]


@pytest.mark.parametrize("pool", [None, (2, 1, 2)])
def test_gradcheck(pool, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, SCAN)
    monkeypatch.setattr(slabs, "SLAB_ELEMENTS", 1)
    layer = RVMLayer(3, 5, 3, d_state=2).double()
    x = torch.randn(1, 4, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: layer(x, pool), x, fast_mode=True)
    made = [p.detach().clone().requires_grad_() for p in layer._parameters_of_operator()]
    assert torch.autograd.gradcheck(
        lambda *p: rvm_layer(x.detach(), p, pool or (1, 1, 1)), made, fast_mode=True, atol=1e-4
    )


@pytest.mark.parametrize("product_dtype", [None, torch.bfloat16], ids=str)
def test_opcheck(product_dtype):
    layer, x, pool = layer_and_input("2d pooled, odd", torch.float32)
    made = [p.detach().requires_grad_() for p in layer._parameters_of_operator()]
    torch.library.opcheck(rvm_layer_op, (x.requires_grad_(), made, list(pool), True, SCAN, product_dtype))
    made = [p.detach().float().requires_grad_() for p in parameters(16, 2, 3, head=True)]
    torch.library.opcheck(depthwise_op, (HEAD, x, [40, 20], made, SCAN, product_dtype))
    torch.library.opcheck(upsample_op, (x, [40, 20]))


@pytest.mark.parametrize("dims", [2, 3])
def test_network_equals_that_of_the_reference(dims, monkeypatch):
    torch.manual_seed(0)
    network = LightMUNet(1, 3, spatial_dims=dims, features=8, d_state=4, deep_supervision=True).double()
    image = torch.randn(2, 1, *(9, 12, 11)[:dims], dtype=torch.float64)

    def run(backend):
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, backend)
        network.zero_grad()
        logits = network(image)
        sum(y.square().mean() for y in logits).backward()
        return {"y": logits[0].detach(), **{name: p.grad.clone() for name, p in network.named_parameters()}}

    assert_close(run(SCAN), run("reference"), 1e-10)


@pytest.mark.parametrize("newer", [None, "ieee", "tf32"])
def test_tensorfloat32_is_off_within_and_as_before_after(newer):
    """Whichever of PyTorch's two ways a script has used to set it."""
    cudnn = torch.backends.cudnn
    if newer is not None and not hasattr(cudnn, "conv"):
        pytest.skip("before PyTorch 2.9 there is one way")
    x = SimpleNamespace(is_cuda=True, dtype=torch.float32)
    before = cudnn.conv.fp32_precision if hasattr(cudnn, "conv") else None
    try:
        if newer is not None:
            cudnn.conv.fp32_precision = newer
        with pieces._without_tf32(x):
            assert (cudnn.conv.fp32_precision == "ieee") if hasattr(cudnn, "conv") else not cudnn.allow_tf32
        if newer is not None:
            assert cudnn.conv.fp32_precision == newer
        else:
            assert cudnn.allow_tf32
    finally:
        if before is not None:
            cudnn.conv.fp32_precision = before

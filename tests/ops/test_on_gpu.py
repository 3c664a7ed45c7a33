"""The scan and the layers on a GPU, where there is one: against the CPU in float64, twice the same, in every dtype."""

from __future__ import annotations

import io

import pytest
import torch

from nnunetv2_lightm.networks import LightMUNet
from nnunetv2_lightm.ops import backend_table
from nnunetv2_lightm.ops.backends.recomputing import slabs
from nnunetv2_lightm.optim import MuonAdamW

from .cases import TOLERANCES, assert_close, cast, grads_for, make_inputs, run
from .triton_layers import LAYERS, MAPS, check_depthwise, check_layer, check_upsampling

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here, or PyTorch cannot use it"),
]
BACKENDS = [status.name for status in backend_table(("cuda",)) if status.usable]
# The last one has more chunks than one group of them holds.
SHAPES = [(2, 1, 5, 3), (2, 63, 33, 16), (1, 1000, 64, 16), (2, 4097, 5, 1), (1, 8400, 3, 2)]
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)


def on_gpu(inputs):
    return {n: None if t is None else t.detach().cuda().requires_grad_() for n, t in inputs.items()}


@pytest.mark.parametrize("backend", BACKENDS or ["none"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scan(backend, shape):
    inputs = make_inputs(*shape, dtype=torch.float32)
    wide = cast(inputs, torch.float64)
    found = {n: t.cpu() for n, t in run(on_gpu(inputs), backend, **on_device(grads_for(inputs))).items()}
    assert_close(found, run(wide, "torch_chunked", **grads_for(wide)), TOLERANCES[torch.float32])


def on_device(grads):
    return {name: grad.cuda() for name, grad in grads.items()}


@DTYPES
@pytest.mark.parametrize("case", LAYERS)
def test_layer(case, dtype):
    check_layer(case, "cuda", dtype)


@DTYPES
@pytest.mark.parametrize("case", LAYERS)
def test_layer_in_slabs(case, dtype, monkeypatch):
    """As at full size: slabs with halos, states that go from one to the next."""
    monkeypatch.setattr(slabs, "SLAB_ELEMENTS", 300)
    check_layer(case, "cuda", dtype)


@pytest.mark.parametrize("case", MAPS)
def test_depthwise_in_slabs(case, monkeypatch):
    monkeypatch.setattr(slabs, "SLAB_ELEMENTS", 60)
    check_depthwise(case, "cuda", torch.float32)


@DTYPES
@pytest.mark.parametrize("case", MAPS)
def test_depthwise(case, dtype):
    check_depthwise(case, "cuda", dtype)


@DTYPES
def test_upsampling(dtype):
    check_upsampling("cuda", dtype)


def test_steps_are_counted_on_the_cpu_after_a_checkpoint():
    """nnU-Net loads its checkpoints onto the GPU; there each count would be waited for."""
    weight = torch.nn.Parameter(torch.ones(3, device="cuda"))
    optimizer = MuonAdamW([{"params": [weight]}])
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    optimizer.load_state_dict(torch.load(io.BytesIO(file.getvalue()), map_location="cuda"))
    assert optimizer.state[weight]["step"].is_cpu and optimizer.state[weight]["exp_avg"].is_cuda


LOSS_SCALE = 4096


@pytest.mark.parametrize("autocast", [None, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("dims", [2, 3])
def test_network_as_on_the_cpu_and_twice_the_same(dims, autocast):
    torch.manual_seed(0)
    network, image = LightMUNet(1, 3, spatial_dims=dims), torch.randn(2, 1, *(40, 33, 24)[:dims])
    network(image).square().mean().backward()
    expected = [p.grad.clone() for p in network.parameters()]
    network.cuda()
    runs = []
    for _ in range(2):
        network.zero_grad()
        with torch.autocast("cuda", autocast or torch.float32, enabled=autocast is not None):
            loss = network(image.cuda()).float().square().mean()
        # As nnU-Net's scaler: half precision cannot hold gradients of a mean over so many logits.
        (LOSS_SCALE * loss).backward()
        runs.append([p.grad / LOSS_SCALE for p in network.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    scale = max(g.abs().max() for g in expected)
    tolerance = 1e-3 if autocast is None else 5e-2
    for found, value in zip(runs[0], expected, strict=True):
        assert (found.cpu() - value).abs().max() <= tolerance * scale

"""The Mamba-1 block against its formula, token by token, and against the parameters of released networks."""

from __future__ import annotations

import json
import math

import pytest
import torch
import torch.nn.functional as F

from nnunetv2_lightm.layers import Mamba1Block
from nnunetv2_lightm.ops import backend_table

BACKENDS = ["reference", *(status.name for status in backend_table(("cpu",)) if status.usable and status.considered)]


def perturbed(*arguments, **options):
    """A block whose parameters are all off their initial values, so that a forgotten one shows."""
    block = Mamba1Block(*arguments, **options).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return block


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain_mamba(x, p, dt_rank, d_state):
    """Mamba's recurrence, one token of one batch entry at a time, from a state dict and nothing else."""
    outputs = []
    for sequence in x:
        xs = sequence @ p["in_proj.weight"].T
        d_inner = xs.shape[1] // 2
        h = x.new_zeros(d_inner, d_state)
        d_conv = p["conv1d.weight"].shape[2]
        window = x.new_zeros(d_conv, d_inner)
        for t in range(len(xs)):
            window = torch.cat([window[1:], xs[t : t + 1, :d_inner]])
            u = F.silu((window * p["conv1d.weight"][:, 0].T).sum(0) + p["conv1d.bias"])
            dt, B, C = (p["x_proj.weight"] @ u).split([dt_rank, d_state, d_state])
            dt = torch.log1p(torch.exp(p["dt_proj.weight"] @ dt + p["dt_proj.bias"]))
            h = torch.exp(-dt[:, None] * p["A_log"].exp()) * h + (dt * u)[:, None] * B
            y = (h @ C + p["D"] * u) * F.silu(xs[t, d_inner:])
            outputs.append(p["out_proj.weight"] @ y)
    return torch.stack(outputs).reshape(x.shape)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 67])
def test_is_mambas_formula(monkeypatch, backend, length):
    monkeypatch.setenv("NNUNETV2_LIGHTM_BACKEND", backend)
    block = perturbed(6, d_state=5, dt_rank=3)
    x = normal(2, length, 6)
    torch.testing.assert_close(block(x), plain_mamba(x, block.state_dict(), 3, 5), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "options", [{"d_conv": 1}, {"d_conv": 2}, {"d_conv": 7}, {"expand": 1}, {"expand": 3}, {"d_state": 1}], ids=str
)
def test_options(options):
    block = perturbed(5, **options)
    x = normal(1, 6, 5)
    expected = plain_mamba(x, block.state_dict(), 1, options.get("d_state", 16))
    torch.testing.assert_close(block(x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("changed", [0, 1, 63, 64, 99])
def test_no_token_sees_a_later_one(changed):
    block = perturbed(4, d_state=3)
    x = normal(2, 100, 4)
    other = x.clone()
    other[1, changed] += 1
    differs = (block(x) != block(other)).any(-1)
    assert not differs[0].any() and not differs[1, :changed].any()
    assert differs[1, changed:].all(), "all later tokens see it"


@pytest.mark.parametrize(("d_model", "dt_rank"), [(8, 1), (16, 1), (17, 2), (256, 16)])
def test_parameters_are_those_of_mamba_ssm(d_model, dt_rank):
    d_inner = 2 * d_model
    shapes = {name: tuple(p.shape) for name, p in Mamba1Block(d_model).named_parameters()}
    assert shapes == {
        "A_log": (d_inner, 16),
        "D": (d_inner,),
        "in_proj.weight": (2 * d_inner, d_model),
        "conv1d.weight": (d_inner, 1, 4),
        "conv1d.bias": (d_inner,),
        "x_proj.weight": (dt_rank + 32, d_inner),
        "dt_proj.weight": (d_inner, dt_rank),
        "dt_proj.bias": (d_inner,),
        "out_proj.weight": (d_model, d_inner),
    }
    assert Mamba1Block(d_model).state_dict().keys() == shapes.keys(), "no buffers"


def test_number_of_parameters():
    assert sum(p.numel() for p in Mamba1Block(64).parameters()) == 32_640
    assert sum(p.numel() for p in Mamba1Block(64, dt_rank=1).parameters()) == 32_640 - 3 * (128 + 128)


@pytest.mark.parametrize("revision", ["first_2d", "first_3d", "head_2d", "head_3d"])
def test_released_networks_hold_such_blocks(data_root, revision):
    """Every Mamba in the authors' networks at full size has the names and shapes of ours."""
    stored = json.loads((data_root / "released_parity" / f"{revision}_filters32_shapes.json").read_text())
    blocks = {}
    for name, shape in stored.items():
        place, found, parameter = name.partition(".mamba.")
        if found:
            blocks.setdefault(place, {})[parameter] = list(shape)
    assert len(blocks) >= 21
    for shapes in blocks.values():
        block = Mamba1Block(shapes["in_proj.weight"][1])
        assert {name: list(p.shape) for name, p in block.state_dict().items()} == shapes


def test_initial_values_are_mambas():
    torch.manual_seed(0)
    block = Mamba1Block(256)
    torch.testing.assert_close(block.A_log.exp(), torch.arange(1.0, 17).expand(512, 16))
    assert (block.D == 1).all()
    dt = F.softplus(block.dt_proj.bias)
    assert dt.min() >= 1e-3 * 0.999 and dt.max() <= 0.1 * 1.001
    assert block.dt_proj.weight.abs().max() <= 16**-0.5
    bounds = {"in_proj": 256, "x_proj": 512, "out_proj": 512, "conv1d": 4}  # fan-in; uniform, as PyTorch starts them
    for name, fan_in in bounds.items():
        assert 0.9 / math.sqrt(fan_in) <= getattr(block, name).weight.abs().max() <= 1 / math.sqrt(fan_in)


@pytest.mark.parametrize("length", [1, 3, 66])
def test_every_parameter_gets_a_gradient(length):
    block = perturbed(6, d_state=4)
    block(normal(2, length, 6)).square().sum().backward()
    for name, parameter in block.named_parameters():
        # The first token meets the convolution's last tap alone, and an empty state: A has nothing to decay.
        if length == 1 and name == "A_log":
            assert not parameter.grad.any()
        else:
            assert parameter.grad.isfinite().all() and parameter.grad.any(), name


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_those_of_the_formula(monkeypatch, backend):
    monkeypatch.setenv("NNUNETV2_LIGHTM_BACKEND", backend)
    block = perturbed(4, d_state=3, dt_rank=2)
    x, grad = normal(2, 70, 4).requires_grad_(), normal(2, 70, 4, seed=1)
    parameters = dict(block.named_parameters())
    result = torch.autograd.grad(block(x), [x, *parameters.values()], grad)
    expected = torch.autograd.grad(plain_mamba(x, parameters, 2, 3), [x, *parameters.values()], grad)
    for name, ours, theirs in zip(["x", *parameters], result, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_autocast(dtype):
    block = Mamba1Block(16)
    x = normal(1, 70, 16).float()
    expected = block(x)
    with torch.autocast("cpu", dtype=dtype):
        y = block(x)
    assert y.dtype == dtype
    assert ((y - expected).abs().max() < 3e-2 * expected.abs().max()).item()


def test_input_of_any_strides():
    block = perturbed(6)
    x = normal(6, 9, 4)
    torch.testing.assert_close(block(x.permute(2, 1, 0)), block(x.permute(2, 1, 0).contiguous()))


def test_maps_must_be_flattened_first():
    with pytest.raises(ValueError, match=r"`x` is \(1, 4, 4, 8\); expected three axes, \(batch, length, d_model\)"):
        Mamba1Block(8)(torch.zeros(1, 4, 4, 8))

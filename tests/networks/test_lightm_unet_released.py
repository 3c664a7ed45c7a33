"""LightMUNetReleased: the released code's outputs, names and counts; any size; what nnU-Net asks; the ablations."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nnunetv2_lightm.networks import LightMUNetReleased
from nnunetv2_lightm.networks.lightm_unet_released import ReleasedRVMLayer

REVISIONS = ("head", "first")
CHANNELS = {2: (3, 2), 3: (1, 3)}  # input channels and classes of the stored networks


def small(spatial_dims=2, revision="head", ablation=None, channels=None):
    torch.manual_seed(0)
    channels = channels or CHANNELS[spatial_dims]
    return LightMUNetReleased(
        *channels, spatial_dims=spatial_dims, features=8, revision=revision, ablation=ablation
    ).eval()


def full_size(spatial_dims, revision, ablation=None):
    """At full size, without values: only names, shapes and counts matter."""
    with torch.device("meta"):
        return LightMUNetReleased(
            *CHANNELS[spatial_dims], spatial_dims=spatial_dims, revision=revision, ablation=ablation
        )


def count(network):
    return sum(p.numel() for p in network.parameters())


@pytest.fixture(params=[(r, d) for r in REVISIONS for d in (2, 3)], ids=lambda p: f"{p[0]}_{p[1]}d")
def released(request, data_root):
    """What the released code computed in float64: our network with its weights, the input, its output."""
    revision, dims = request.param
    stored = np.load(data_root / "released_parity" / f"{revision}_{dims}d_filters8.npz")
    weights = {k.removeprefix("weight/"): torch.from_numpy(stored[k]) for k in stored.files if k.startswith("weight/")}
    network = small(dims, revision)
    network.load_state_dict(weights, strict=True)
    return network, torch.from_numpy(stored["input"]), torch.from_numpy(stored["output"])


def test_computes_what_the_released_code_computes(released):
    network, image, output = released
    torch.testing.assert_close(network(image), output, atol=1e-4, rtol=0)
    # What is left is the rounding of the stored float32 output.
    torch.testing.assert_close(network.double()(image.double()), output.double(), atol=5e-7, rtol=0)


@pytest.mark.parametrize("backend", ["reference", "torch_chunked"])
def test_computes_it_on_other_backends_too(released, backend, monkeypatch):
    monkeypatch.setenv("NNUNETV2_LIGHTM_BACKEND", backend)
    network, image, output = released
    with torch.no_grad():
        torch.testing.assert_close(network(image), output, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("revision", REVISIONS)
def test_names_and_shapes_are_the_released_ones(data_root, revision, dims):
    stored = json.loads((data_root / "released_parity" / f"{revision}_{dims}d_filters32_shapes.json").read_text())
    network = full_size(dims, revision)
    assert {name: list(tensor.shape) for name, tensor in network.state_dict().items()} == stored
    assert network.state_dict().keys() == dict(network.named_parameters()).keys(), "no buffers"


@pytest.mark.parametrize(
    ("revision", "dims", "parameters"),
    [("head", 3, 5_015_766), ("head", 2, 5_011_765), ("first", 3, 6_150_168), ("first", 2, 5_375_991)],
)
def test_parameter_count(revision, dims, parameters):
    assert count(full_size(dims, revision)) == parameters


@pytest.mark.parametrize(("channels", "parameters"), [(32, 11_041), (64, 36_929), (128, 133_249), (256, 504_065)])
def test_parameter_count_of_an_rvm_layer(channels, parameters):
    assert count(ReleasedRVMLayer(channels, channels)) == parameters


@pytest.mark.parametrize(
    ("ablation", "parameters", "macs"),
    [
        (None, 6_150_168, 352_959_144_704),
        ("conv3", 18_796_035, 756_719_550_464),
        # Attention of 4,096 tokens in 8 layers, next to Mamba in the other 13.
        ("self_attention", 4_220_952, 414_095_270_656),
        ("no_adjustment", 6_150_168, 352_959_144_704),
        ("no_residual", 6_150_168, 352_959_144_704),
    ],
)
def test_ablations_of_table_3(ablation, parameters, macs):
    """True parameters, and true multiplications of one 128x128x128 image without the scan."""
    network = full_size(3, "first", ablation)
    assert count(network) == parameters
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, 1, 128, 128, 128, device="meta"))
    assert counter.get_total_flops() == 2 * macs


def test_number_of_layers():
    """Stages of 1, 2, 2, 4 residual blocks of 2 RVM layers, and 3 layers that widen."""
    layers = [m for m in full_size(3, "head").modules() if isinstance(m, ReleasedRVMLayer)]
    assert len(layers) == 21
    assert [m.proj.in_features for m in layers if m.proj.out_features != m.proj.in_features] == [32, 64, 128]


@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize(
    "size", [(16, 24), (33, 47), (7, 5), (1, 9), (1, 1), (9, 16, 23), (5, 7, 3), (1, 1, 1)], ids=str
)
def test_any_size(size, revision):
    network = small(len(size), revision, channels=(4, 5))
    with torch.no_grad():
        logits = network(torch.randn(2, 4, *size))
    assert logits.shape == (2, 5, *size) and logits.is_contiguous() and torch.isfinite(logits).all()


@pytest.mark.parametrize("ablation", [None, "conv3", "self_attention", "no_adjustment", "no_residual"])
@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("dims", [2, 3])
def test_every_parameter_gets_a_gradient(dims, revision, ablation):
    network = small(dims, revision, ablation)
    network(torch.randn(2, CHANNELS[dims][0], *(16,) * dims)).square().mean().backward()
    learned = {name: p for name, p in network.named_parameters() if p.requires_grad}
    assert [name for name, p in learned.items() if p.grad is None or not p.grad.abs().max() > 0] == []
    frozen = {name.rsplit(".", 1)[1] for name, p in network.named_parameters() if not p.requires_grad}
    assert frozen == ({"skip_scale"} if ablation in ("no_adjustment", "no_residual") else set())


@pytest.mark.parametrize(("ablation", "scale"), [("no_adjustment", 1.0), ("no_residual", 0.0)])
def test_a_fixed_scale_is_the_formula_without_it(ablation, scale):
    network = small(3, "first", ablation)
    layer = network.down_layers[0][1].conv1
    x = torch.randn(1, 8, 2, 3, 4)
    tokens = x.flatten(2).transpose(1, 2)
    m = layer.mamba(layer.norm(tokens)) + (tokens if scale else 0)
    torch.testing.assert_close(layer(x), layer.proj(layer.norm(m)).transpose(1, 2).view(x.shape))


def test_self_attention_is_the_formula():
    """softmax(Q K^T / sqrt(d)) V, head by head, in the eight layers of the last stage alone."""
    network = small(2, "first", "self_attention")
    mixers = [type(m.mamba).__name__ for m in network.modules() if isinstance(m, ReleasedRVMLayer)]
    assert mixers == ["Mamba1Block"] * 13 + ["SelfAttention"] * 8
    attention = network.down_layers[3][1].conv1.mamba
    x = torch.randn(2, 5, 64)
    q, k, v = (attention.qkv(x)[..., 64 * i : 64 * (i + 1)] for i in range(3))
    expected = torch.empty_like(x)
    for head in range(8):
        part = slice(8 * head, 8 * (head + 1))
        weights = torch.softmax(q[..., part] @ k[..., part].transpose(1, 2) / 8**0.5, dim=-1)
        expected[..., part] = weights @ v[..., part]
    torch.testing.assert_close(attention(x), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
@pytest.mark.parametrize("revision", REVISIONS)
def test_autocast_stays_finite_and_close(revision, dtype):
    network = small(2, revision)
    image = 10 * torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = network(image)
        with torch.autocast("cpu", dtype=dtype):
            logits = network(image)
    assert torch.isfinite(logits).all()
    assert (logits.float() - expected).abs().max() < 0.05 * expected.abs().max()


def test_mamba_beyond_the_range_of_float16_under_autocast():
    """No norm bounds what Mamba adds to the map: in float16 it would overflow, and everything behind would be NaN."""
    network = small(2)
    layer = network.down_layers[0][1].conv1
    with torch.no_grad():
        layer.mamba.D.fill_(1e6)
        expected = network(torch.ones(1, 3, 16, 16))
        seen = []
        layer.mamba.register_forward_hook(lambda _, __, output: seen.append(output.abs().max()))
        with torch.autocast("cpu", dtype=torch.float16):
            logits = network(torch.ones(1, 3, 16, 16))
    assert seen[0] > torch.finfo(torch.float16).max
    torch.testing.assert_close(logits.float(), expected, atol=0.05 * expected.abs().max().item(), rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_computes_in_the_dtype_of_the_parameters(dtype):
    with torch.no_grad():
        logits = small().to(dtype)(torch.randn(1, 3, 16, 16).to(dtype))
    assert logits.dtype == dtype and torch.isfinite(logits).all()


@pytest.mark.slow
def test_compiles_and_exports_without_a_graph_break():
    network = small()
    for stage in network.down_layers:
        del stage[2:]  # one residual block each: that all are alike takes no time to show
    image = torch.randn(1, 3, 24, 20)
    with torch.no_grad():
        expected = network(image)
        compiled = torch.compile(network, backend="aot_eager", fullgraph=True)(image)
        torch.testing.assert_close(compiled, expected)
        exported = torch.export.export(network, (image,)).module()
        torch.testing.assert_close(exported(image), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spatial_dims": 1}, "spatial_dims is 1; expected 2 or 3"),
        ({"features": 12}, "features is 12; expected a multiple of 8"),
        ({"features": 0}, "features is 0; expected a multiple of 8"),
        ({"revision": "second"}, "revision is 'second'; expected one of 'head', 'first'"),
        ({"ablation": "conv"}, "ablation is 'conv'; expected None or one of 'conv3', 'self_attention'"),
    ],
)
def test_bad_options_say_what_is_needed(options, message):
    with pytest.raises(ValueError, match=message):
        LightMUNetReleased(1, 2, **{"spatial_dims": 2, **options})

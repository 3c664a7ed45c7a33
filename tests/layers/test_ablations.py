"""The RVM layers of Table 3 against their equations, and the networks made of them."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from nnunetv2_lightm.layers import ABLATIONS, RVMLayer, VSSModule
from nnunetv2_lightm.networks import LightMUNet
from nnunetv2_lightm.ops import select_backend

NAMES = [name for name in ABLATIONS if name is not None]
SPATIAL = pytest.mark.parametrize("spatial", [(4, 5), (2, 3, 4)], ids=["2d", "3d"])


def bottleneck_layer(name, channels, spatial_dims):
    """A layer of the Bottleneck Block in float64, every parameter off its initial value."""
    layer = ABLATIONS[name][1](channels, channels, spatial_dims, d_state=3).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return layer


def plain_mix(name, layer, x):
    """Equation (1) as the row of the table changes it."""
    normed = F.layer_norm(x, x.shape[-1:], layer.norm_in.weight, layer.norm_in.bias)
    if name == "no_adjustment":
        return layer.vssm(normed) + x
    if name == "no_residual":
        return layer.vssm(normed)
    mixed = plain_conv3(normed, layer.vssm.conv) if name == "conv3" else plain_attention(normed, layer.vssm)
    return mixed + layer.scale * x


def plain_conv3(x, conv):
    """Every voxel's neighbourhood, unfolded, times the kernel."""
    dims = x.ndim - 2
    windows = F.pad(x, (0, 0, *(1, 1) * dims))
    for axis in range(1, dims + 1):
        windows = windows.unfold(axis, 3, 1)
    return windows.flatten(dims + 1) @ conv.weight.flatten(1).T + conv.bias


def plain_attention(x, attention):
    """One head after the other, with the matrix of all pairs of voxels."""
    tokens = x.flatten(1, -2)
    width = x.shape[-1] // attention.num_heads
    queries, keys, values = (tokens @ weight.T for weight in attention.qkv.weight.chunk(3))
    heads = []
    for q, k, v in zip(queries.split(width, -1), keys.split(width, -1), values.split(width, -1), strict=True):
        heads.append((q @ k.mT / math.sqrt(width)).softmax(-1) @ v)
    return torch.cat(heads, -1).view(x.shape)


@pytest.mark.parametrize("name", NAMES)
@SPATIAL
def test_layer_is_equations_1_and_2_with_one_thing_changed(name, spatial):
    layer = bottleneck_layer(name, 16, len(spatial))
    assert not layer.fused("cpu")
    x = torch.randn(2, *spatial, 16, dtype=torch.float64)
    m = plain_mix(name, layer, x)
    out = layer.projection(F.layer_norm(m, (16,), layer.norm_out.weight, layer.norm_out.bias))
    torch.testing.assert_close(layer(x), out)
    pool = F.max_pool2d if len(spatial) == 2 else F.max_pool3d
    torch.testing.assert_close(layer(x, pool=[2] * len(spatial)), pool(out.movedim(-1, 1), 2).movedim(1, -1))


@SPATIAL
def test_without_adjustment_is_the_papers_layer_at_its_start(spatial):
    """s starts at 1; the modular layer and the compiled operator, which the paper's layer is on a CPU, agree."""
    paper = RVMLayer(16, 32, len(spatial))
    ablated = ABLATIONS["no_adjustment"][0](16, 32, len(spatial))
    loaded = ablated.load_state_dict(paper.state_dict(), strict=False)
    assert (loaded.missing_keys, loaded.unexpected_keys) == ([], ["scale"])
    x = torch.randn(1, *spatial, 16)
    torch.testing.assert_close(ablated(x), paper(x), atol=1e-5, rtol=1e-4)


def test_attention_is_in_the_bottleneck_alone():
    network = LightMUNet(1, 2, spatial_dims=2, ablation="self_attention")
    in_encoder = [layer for block in network.encoder for layer in block.layers]
    assert [type(layer.vssm) for layer in in_encoder] == [VSSModule] * 5
    assert not any(isinstance(layer.vssm, VSSModule) for layer in network.bottleneck)
    assert all(layer.fused("cpu") == (select_backend("cpu") != "reference") for layer in in_encoder)


@pytest.mark.parametrize("name", ["conv3", "no_adjustment", "no_residual"])
def test_the_others_are_everywhere(name):
    network = LightMUNet(1, 2, spatial_dims=2, ablation=name)
    layers = [layer for layer in network.modules() if isinstance(layer, RVMLayer)]
    assert len(layers) == 9 and {type(layer) for layer in layers} == {ABLATIONS[name][0]}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("spatial_dims", "input_channels", "num_classes"), [(3, 1, 3), (2, 3, 2)], ids=["3d", "2d"])
def test_parameter_count_differs_from_the_papers_by_what_is_exchanged(name, spatial_dims, input_channels, num_classes):
    """Counted by hand; widths of the nine layers' inputs: 32, 64 twice, 128 twice, 256 four times."""
    widths = [32, *[64] * 2, *[128] * 2, *[256] * 4]

    def vss(c, n=16):
        e, rank, kernel = 2 * c, -(-c // 16), 3**spatial_dims
        ssm = e * (rank + 2 * n) + (rank * e + e) + e * n + e
        return 2 * c * e + (kernel * e + e) + ssm + 2 * e + e * c

    change = {
        "conv3": sum(3**spatial_dims * c * c + c - vss(c) for c in widths),
        "self_attention": sum(3 * c * c - vss(c) for c in widths[5:]),
        "no_adjustment": -sum(widths),
        "no_residual": -sum(widths),
    }
    with torch.device("meta"):
        paper = LightMUNet(input_channels, num_classes, spatial_dims=spatial_dims)
        ablated = LightMUNet(input_channels, num_classes, spatial_dims=spatial_dims, ablation=name)
    before, after = (sum(p.numel() for p in network.parameters()) for network in (paper, ablated))
    assert after == before + change[name]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(17, 10), (5, 9, 17)], ids=str)
def test_any_size_and_every_parameter_gets_a_gradient(name, size):
    network = LightMUNet(2, 3, spatial_dims=len(size), features=8, d_state=4, ablation=name)
    logits = network(torch.randn(2, 2, *size))
    assert logits.shape == (2, 3, *size)
    logits.square().mean().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not without
    other = LightMUNet(2, 3, spatial_dims=len(size), features=8, d_state=4, ablation=name)
    other.load_state_dict(network.state_dict(), strict=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conv3", "self_attention", "no_residual"])
def test_compiles_without_a_graph_break(name):
    """nnU-Net compiles networks by default on CUDA."""
    layers = {"rvm_layers": (1,), "bottleneck_rvm_layers": 1}
    network = LightMUNet(1, 2, spatial_dims=2, features=8, d_state=4, ablation=name, **layers).eval()
    image = torch.randn(1, 1, 16, 12)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(image), network(image))


def test_unknown_ablation_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"ablation is 'conv5'; expected one of \[None, 'conv3', 'self_attention'"):
        LightMUNet(1, 2, spatial_dims=2, ablation="conv5")

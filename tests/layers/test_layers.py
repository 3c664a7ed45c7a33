"""The layers against the paper's equations, written out plainly."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from nnunetv2_lightm.layers import DecoderBlock, RVMLayer, SelectiveSSM, VSSModule, depthwise_conv, upsample
from nnunetv2_lightm.ops import select_backend, selective_scan_reference
from nnunetv2_lightm.ops.backends import ENVIRONMENT_VARIABLE


def perturb(module):
    """Move every parameter off its initial value, so that a forgotten one shows."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return module.double()


def plain_depthwise(x, conv):
    """Channels-first convolution, one channel at a time."""
    op = F.conv2d if x.ndim == 4 else F.conv3d
    channels = [
        op(x[..., c].unsqueeze(1), conv.weight[c : c + 1], conv.bias[c : c + 1], padding=1).squeeze(1)
        for c in range(x.shape[-1])
    ]
    return torch.stack(channels, -1)


def plain_ssm(u, ssm):
    dt, B, C = (u @ ssm.x_proj.weight.T).split([ssm.dt_rank, ssm.d_state, ssm.d_state], -1)
    delta = F.softplus(dt @ ssm.dt_proj.weight.T + ssm.dt_proj.bias)
    return selective_scan_reference(u, delta, -ssm.A_log.exp(), B, C, ssm.D)[0]


@pytest.mark.parametrize("channels", [6, 16])
@pytest.mark.parametrize("shape", [(2, 5, 4), (1, 3, 5, 4)], ids=["2d", "3d"])
def test_depthwise_conv_is_same_size_and_per_channel(shape, channels):
    x = torch.randn(*shape, channels, dtype=torch.float64)
    conv = perturb(depthwise_conv(channels, len(shape) - 1))
    torch.testing.assert_close(conv(x), plain_depthwise(x, conv))


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_depthwise_conv_does_not_copy(spatial_dims):
    y = depthwise_conv(8, spatial_dims)(torch.randn(2, *(6,) * spatial_dims, 8))
    assert y.is_contiguous(), "the map must stay channels-last in memory"


def test_ssm_matches_its_formula():
    ssm = perturb(SelectiveSSM(8, d_state=4, dt_rank=2))
    u = torch.randn(2, 11, 8, dtype=torch.float64)
    torch.testing.assert_close(ssm(u), plain_ssm(u, ssm))


def test_ssm_initial_step_sizes():
    dt = F.softplus(SelectiveSSM(512, d_state=4, dt_rank=2).dt_proj.bias)
    assert dt.min() >= 1e-3 * 0.999 and dt.max() <= 0.1 * 1.001
    assert dt.log().std() > 1.0, "log-uniform over two decades"


@pytest.mark.parametrize("shape", [(2, 5, 4), (1, 3, 5, 4)], ids=["2d", "3d"])
def test_vss_module_is_equation_3(shape):
    vss = perturb(VSSModule(6, len(shape) - 1, expand=2, d_state=3))
    x = torch.randn(*shape, 6, dtype=torch.float64)
    branch = F.silu(plain_depthwise(x @ vss.in_proj.weight.T, vss.dwconv))
    tokens = branch.reshape(shape[0], -1, 12)
    w1 = F.layer_norm(plain_ssm(tokens, vss.ssms[0]), (12,), vss.norm.weight, vss.norm.bias).reshape(*shape, 12)
    w2 = F.silu(x @ vss.gate_proj.weight.T)
    torch.testing.assert_close(vss(x), (w1 * w2) @ vss.out_proj.weight.T)


@pytest.mark.parametrize(("directions", "spatial_dims"), [(2, 2), (2, 3), (4, 2)])
def test_scan_directions_add_up(directions, spatial_dims):
    """A direction's scan of a map equals the raster scan of the reordered map, put back in place."""
    vss = perturb(VSSModule(4, spatial_dims, d_state=3, scan_directions=directions))
    x = torch.randn(2, *(3, 4, 5)[:spatial_dims], 8, dtype=torch.float64)
    batch = x.shape[0]
    expected = plain_ssm(x.reshape(batch, -1, 8), vss.ssms[0]).reshape(x.shape)
    expected = expected + plain_ssm(x.reshape(batch, -1, 8).flip(1), vss.ssms[1]).flip(1).reshape(x.shape)
    if directions == 4:
        columns = x.transpose(1, 2).contiguous()
        tokens = columns.reshape(batch, -1, 8)
        down = plain_ssm(tokens, vss.ssms[2]) + plain_ssm(tokens.flip(1), vss.ssms[3]).flip(1)
        expected = expected + down.reshape(columns.shape).transpose(1, 2)
    torch.testing.assert_close(vss.ssms(x), expected)


@pytest.mark.parametrize(("directions", "spatial_dims"), [(3, 2), (0, 3), (4, 3)])
def test_bad_scan_directions(directions, spatial_dims):
    with pytest.raises(ValueError, match=f"scan_directions is {directions} in {spatial_dims}D"):
        VSSModule(4, spatial_dims, scan_directions=directions)


@pytest.mark.parametrize("backend", ["reference", "torch_chunked", None])
@pytest.mark.parametrize("channels", [6, 16])
def test_rvm_layer_is_equations_1_and_2(channels, backend, monkeypatch):
    if backend:
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, backend)
    layer = perturb(RVMLayer(channels, 2 * channels, 2, d_state=3))
    # The compiled layer wants multiples of 16 channels.
    expected = {"reference": False, "torch_chunked": True, "cpu_native": channels == 16}[select_backend("cpu")]
    assert layer.fused("cpu") == expected
    x = torch.randn(2, 4, 5, channels, dtype=torch.float64)
    normed = F.layer_norm(x, (channels,), layer.norm_in.weight, layer.norm_in.bias)
    m = layer.vssm(normed) + layer.scale * x
    m = F.layer_norm(m, (channels,), layer.norm_out.weight, layer.norm_out.bias)
    out = m @ layer.projection.weight.T + layer.projection.bias
    torch.testing.assert_close(layer(x), out)
    pooled = F.max_pool2d(out.movedim(-1, 1), (2, 1)).movedim(1, -1)
    torch.testing.assert_close(layer(x, pool=(2, 1)), pooled)
    assert layer(x, pool=(8, 2)).shape == (2, 0, 2, 2 * channels)  # a window that is larger than the map


def test_rvm_layer_with_two_scan_directions_is_not_fused():
    layer = RVMLayer(16, 16, 2, scan_directions=2)
    assert not layer.fused("cpu") and layer(torch.randn(1, 4, 4, 16)).shape == (1, 4, 4, 16)


def test_rvm_layer_starts_with_adjustment_factor_one_and_two_norms():
    layer = RVMLayer(6, 6, 2)
    assert layer.scale.shape == (6,) and (layer.scale == 1).all()
    assert layer.norm_in is not layer.norm_out


@pytest.mark.parametrize(("spatial", "channels"), [((3, 4), 6), ((2, 3, 4), 16)])
def test_decoder_block_is_equation_4(spatial, channels):
    block = perturb(DecoderBlock(channels, len(spatial)))
    p_in, skip = torch.randn(2, 1, *spatial, channels, dtype=torch.float64)
    x = p_in + skip
    p_out = F.relu(plain_depthwise(x, block.dwconv) + block.scale * x)
    torch.testing.assert_close(block(p_in, skip), p_out @ block.halve.weight.T + block.halve.bias)


@pytest.mark.parametrize(("spatial", "size"), [((3, 4), (7, 8)), ((2, 3, 4), (5, 6, 4)), ((3, 4), (3, 4))])
def test_upsample_is_linear(spatial, size):
    x = torch.randn(1, *spatial, 6, dtype=torch.float64)
    expected = F.interpolate(x.movedim(-1, 1), size=size, mode="bilinear" if len(spatial) == 2 else "trilinear")
    torch.testing.assert_close(upsample(x, size), expected.movedim(1, -1))

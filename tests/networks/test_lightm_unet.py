"""LightMUNet: shapes, parameter counts, strides, gradients, and what nnU-Net asks of a network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunetv2_lightm.networks import LightMUNet

SMALL = {"features": 8, "d_state": 4}


@pytest.mark.parametrize(
    ("spatial_dims", "input_channels", "num_classes", "parameters"),
    [(3, 1, 3, 2_523_875), (2, 3, 2, 2_462_850), (2, 1, 2, 2_462_786)],
)
def test_parameter_count(spatial_dims, input_channels, num_classes, parameters):
    network = LightMUNet(input_channels, num_classes, spatial_dims=spatial_dims)
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_parameter_count_is_the_sum_of_the_papers_parts():
    """Counted by hand from section 2, not from the code."""

    def rvm(c, out, kernel, n=16):
        e, rank = 2 * c, -(-c // 16)
        ssm = e * (rank + 2 * n) + (rank * e + e) + e * n + e
        vss = 2 * c * e + (kernel * e + e) + ssm + 2 * e + e * c
        return 2 * c + vss + c + 2 * c + (c * out + out)

    def decoder(c, kernel):
        return kernel * c + c + c + c * (c // 2) + c // 2

    for dims, kernel in ((2, 9), (3, 27)):
        layers = [(32, 64), (64, 64), (64, 128), (128, 128), (128, 256), *[(256, 256)] * 4]
        total = (1 * 32 + 32) + (kernel * 32 + 32)
        total += sum(rvm(c, out, kernel) for c, out in layers)
        total += sum(decoder(c, kernel) for c in (256, 128, 64))
        total += (kernel * 32 + 32) + (32 * 3 + 3)
        assert sum(p.numel() for p in LightMUNet(1, 3, spatial_dims=dims).parameters()) == total


@pytest.mark.parametrize(
    "size", [(32, 32), (33, 47), (7, 5), (1, 9), (16, 16, 16), (17, 9, 23), (5, 7, 3), (1, 1, 1)], ids=str
)
@pytest.mark.parametrize("channels", [1, 4])
def test_any_size_and_channels(size, channels):
    network = LightMUNet(channels, 5, spatial_dims=len(size), **SMALL).eval()
    logits = network(torch.randn(2, channels, *size))
    assert logits.shape == (2, 5, *size) and logits.is_contiguous() and torch.isfinite(logits).all()


def test_sections_of_the_paper():
    """F_S has 32 channels at full resolution, F_D^l has 32 * 2^l at 1 / 2^l (section 2.1)."""
    network = LightMUNet(1, 2, spatial_dims=3)
    shapes = []
    for module in (network.stem, *network.encoder, *network.bottleneck, *network.decoder.blocks):
        module.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
    network(torch.randn(1, 1, 16, 16, 16))
    encoder = [(16, 16, 16, 32), (8, 8, 8, 64), (4, 4, 4, 128), (2, 2, 2, 256)]
    decoder = [(2, 2, 2, 128), (4, 4, 4, 64), (8, 8, 8, 32)]
    assert shapes == encoder + [(2, 2, 2, 256)] * 4 + decoder
    assert [len(block.layers) for block in network.encoder] == [1, 2, 2]


@pytest.mark.parametrize(
    ("strides", "lowest"),
    [
        ([[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2]], (2, 3, 3)),
        ([[1, 1, 1], [2, 2, 2]], (2, 12, 12)),
        ([[1, 1, 1]], (5, 24, 24)),
        ([1, 2, 2, 2], (1, 3, 3)),
        (None, (1, 3, 3)),
    ],
    ids=str,
)
def test_strides_of_the_plans(strides, lowest):
    network = LightMUNet(1, 2, spatial_dims=3, strides=strides, **SMALL)
    shapes = []
    network.bottleneck.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:-1])))
    assert network(torch.randn(1, 1, 5, 24, 24)).shape == (1, 2, 5, 24, 24)
    assert shapes == [lowest]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give one of conv_op and spatial_dims"),
        ({"spatial_dims": 2, "conv_op": nn.Conv2d}, "give one of conv_op and spatial_dims"),
        ({"spatial_dims": 1}, "expected nn.Conv2d or 2"),
        ({"conv_op": nn.Conv1d}, "expected nn.Conv2d or 2"),
        ({"spatial_dims": 2, "strides": [[1, 1, 1], [2, 2, 2]]}, "expected 2 positive numbers for each stage"),
        ({"spatial_dims": 2, "strides": [[2, 2], [2, 2]]}, "its stride must be 1"),
        ({"spatial_dims": 2, "rvm_layers": (1, 0, 2)}, "has 0 RVM layers; it needs at least 1"),
        ({"spatial_dims": 2, "rvm_layers": ()}, "rvm_layers is empty; at least one Encoder Block"),
    ],
)
def test_bad_options_say_what_is_needed(options, message):
    with pytest.raises(ValueError, match=message):
        LightMUNet(1, 2, **options)


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("deep_supervision", [False, True])
@pytest.mark.parametrize("scan_directions", [1, 2])
def test_every_parameter_gets_a_gradient(spatial_dims, deep_supervision, scan_directions):
    network = LightMUNet(
        2, 3, spatial_dims=spatial_dims, deep_supervision=deep_supervision, scan_directions=scan_directions, **SMALL
    )
    output = network(torch.randn(2, 2, *(16,) * spatial_dims))
    outputs = output if deep_supervision else [output]
    sum(o.square().mean() for o in outputs).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not without


def test_equal_in_float64_and_on_the_reference_scan(monkeypatch):
    torch.manual_seed(0)
    network = LightMUNet(1, 2, spatial_dims=2, **SMALL).eval()
    image = torch.randn(1, 1, 24, 20)
    logits = network(image)
    torch.testing.assert_close(logits, network.double()(image.double()).float(), atol=1e-4, rtol=1e-4)
    monkeypatch.setenv("NNUNETV2_LIGHTM_BACKEND", "reference")
    torch.testing.assert_close(logits, network.float()(image), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_autocast_stays_finite_and_close(dtype):
    torch.manual_seed(0)
    network = LightMUNet(1, 2, spatial_dims=2, **SMALL).eval()
    image = 10 * torch.randn(1, 1, 32, 32)
    expected = network(image)
    with torch.autocast("cpu", dtype=dtype):
        logits = network(image)
    assert torch.isfinite(logits).all()
    assert (logits.float() - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.slow
def test_compiles_and_exports_without_a_graph_break():
    """nnU-Net compiles networks by default on CUDA."""
    torch.manual_seed(0)
    network = LightMUNet(1, 2, spatial_dims=2, **SMALL).eval()
    image = torch.randn(1, 1, 24, 20)
    expected = network(image)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)(image)
    torch.testing.assert_close(compiled, expected)
    compiled.mean().backward()
    exported = torch.export.export(network, (image,)).module()
    torch.testing.assert_close(exported(image), expected)


def test_nnunet_builds_it_from_a_plans_file():
    """The call of nnunetv2/utilities/get_network_from_plans.py: class name and keyword arguments from JSON."""
    network = LightMUNet(
        input_channels=1,
        num_classes=3,
        conv_op=nn.Conv3d,
        strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]],
        deep_supervision=True,
        **SMALL,
    )
    full, half, quarter = network(torch.randn(1, 1, 8, 16, 16))
    assert (full.shape[2:], half.shape[2:], quarter.shape[2:]) == ((8, 16, 16), (8, 8, 8), (4, 4, 4))
    network.decoder.deep_supervision = False
    assert network(torch.randn(1, 1, 8, 16, 16)).shape == (1, 3, 8, 16, 16)


def test_weights_trained_with_deep_supervision_predict_without_it():
    trained = LightMUNet(1, 2, spatial_dims=2, deep_supervision=True, **SMALL).eval()
    predicting = LightMUNet(1, 2, spatial_dims=2, **SMALL).eval()
    predicting.load_state_dict(trained.state_dict(), strict=True)
    image = torch.randn(1, 1, 16, 16)
    torch.testing.assert_close(predicting(image), trained(image)[0])
    with pytest.raises(RuntimeError, match="Unexpected key"):
        predicting.load_state_dict({**predicting.state_dict(), "decoder.extra": torch.zeros(1)}, strict=True)


def test_training_fits_a_small_image():
    """The whole gradient path learns: a disc is segmented after a few steps."""
    torch.manual_seed(0)
    grid = torch.stack(torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij"))
    disc = ((grid - 12).square().sum(0) < 36).long()[None]
    image = disc[:, None].float() + 0.3 * torch.randn(1, 1, 24, 24)
    network = LightMUNet(1, 2, spatial_dims=2, **SMALL)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(image), disc)
        loss.backward()
        optimizer.step()
    predicted = network(image).argmax(1)
    dice = 2 * (predicted * disc).sum() / (predicted.sum() + disc.sum())
    assert dice > 0.9

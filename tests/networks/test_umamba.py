"""U-Mamba: true parameter counts, the place of Mamba, gradients, deep supervision."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunetv2_lightm.layers import Mamba1Block
from nnunetv2_lightm.networks import UMambaBot, UMambaEnc
from nnunetv2_lightm.networks.umamba import MambaLayer

BOTH = pytest.mark.parametrize("network_class", [UMambaBot, UMambaEnc])


def architecture(spatial_dims, features, *, blocks=2, strides=None):
    """As nnU-Net's plans describe it, but for the blocks of a stage."""
    stages = len(features)
    return {
        "n_stages": stages,
        "features_per_stage": features,
        "conv_op": {2: nn.Conv2d, 3: nn.Conv3d}[spatial_dims],
        "kernel_sizes": [[3] * spatial_dims] * stages,
        "strides": strides or [[1] * spatial_dims, *[[2] * spatial_dims] * (stages - 1)],
        "n_blocks_per_stage": [blocks] * stages,
        "n_conv_per_stage_decoder": [blocks] * (stages - 1),
        "conv_bias": True,
        "norm_op": {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[spatial_dims],
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
    }


def tiny(network_class, spatial_dims, **options):
    strides = [[1] * spatial_dims, [2] * spatial_dims, [1, *[2] * (spatial_dims - 1)]]
    plan = architecture(spatial_dims, [4, 6, 8], blocks=1, strides=strides)
    return network_class(input_channels=2, num_classes=3, **plan, **options)


def count(module):
    return sum(p.numel() for p in module.parameters())


def at_full_size(network_class, spatial_dims):
    """As in Table 1 of the LightM-UNet paper, with nnU-Net's plans for 128x128x128 and 512x512 voxels."""
    stages, widest, channels, classes = (6, 320, 1, 3) if spatial_dims == 3 else (8, 512, 3, 2)
    plan = architecture(spatial_dims, [min(32 * 2**stage, widest) for stage in range(stages)])
    with torch.device("meta"):
        return network_class(input_channels=channels, num_classes=classes, deep_supervision=True, **plan)


@pytest.mark.parametrize(
    ("network_class", "spatial_dims", "parameters"),
    [
        (UMambaBot, 3, 58_407_567),
        (UMambaBot, 2, 86_148_014),
        (UMambaEnc, 3, 59_681_167),
        (UMambaEnc, 2, 91_833_006),
    ],
)
def test_parameter_count(network_class, spatial_dims, parameters):
    assert count(at_full_size(network_class, spatial_dims)) == parameters


@pytest.mark.parametrize(("spatial_dims", "printed"), [(3, 173.53), (2, 244.10)])
def test_structure_gives_the_papers_inflated_count(spatial_dims, printed):
    """thop meets each convolution twice, the encoder once more in the decoder that holds it, and counts no Mamba."""
    network = at_full_size(UMambaBot, spatial_dims)
    decoder = network.decoder
    assert decoder.encoder is network.encoder
    counted = 4 * count(network.encoder) + 2 * count(decoder.stages) + count(decoder.transpconvs)
    counted += count(decoder.seg_layers) + count(network.mamba_layer.norm)
    assert round(counted / 1e6, 2) == printed


@BOTH
@pytest.mark.parametrize("size", [(8, 12), (6, 8, 12)], ids=str)
def test_every_parameter_gets_a_gradient(network_class, size):
    network = tiny(network_class, len(size), deep_supervision=True)
    full, half = network(torch.randn(2, 2, *size))
    assert full.shape == (2, 3, *size)
    assert half.shape == (2, 3, *(length // 2 for length in size))
    (full.square().mean() + half.square().mean()).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not without


@BOTH
def test_weights_trained_with_deep_supervision_predict_without_it(network_class):
    trained = tiny(network_class, 2, deep_supervision=True).eval()
    predicting = tiny(network_class, 2, deep_supervision=False).eval()
    predicting.load_state_dict(trained.state_dict(), strict=True)
    image = torch.randn(1, 2, 8, 8)
    torch.testing.assert_close(predicting(image), trained(image)[0])
    trained.decoder.deep_supervision = False  # as nnU-Net's trainer switches it
    assert trained(image).shape == (1, 3, 8, 8)


@pytest.mark.parametrize(("network_class", "channels"), [(UMambaBot, [8]), (UMambaEnc, [4, 6, 8])])
def test_place_of_mamba(network_class, channels):
    network = tiny(network_class, 3)
    assert [m.out_proj.out_features for m in network.modules() if isinstance(m, Mamba1Block)] == channels
    assert not any(isinstance(m, Mamba1Block) for m in network.encoder.modules())


@BOTH
def test_mamba_sees_the_voxels_in_raster_order_and_its_output_goes_on_alone(network_class):
    """The lowest stage, whose input and output are captured, redone by hand."""
    network = tiny(network_class, 3).eval()
    layer = network.mamba_layer if network_class is UMambaBot else network.mamba_layers[-1]
    seen = {}
    layer.register_forward_hook(lambda _, inputs, output: seen.update(x=inputs[0], y=output))
    network.decoder.transpconvs[0].register_forward_hook(lambda _, inputs, __: seen.update(decoded=inputs[0]))
    network(torch.randn(1, 2, 4, 8, 12))
    x, y = seen["x"][0], seen["y"][0]
    assert x.shape == (8, 2, 2, 3)
    voxels = torch.stack([x[:, i, j, k] for i in range(2) for j in range(2) for k in range(3)])
    tokens = layer.mamba(layer.norm(voxels)[None])[0]
    torch.testing.assert_close(y, tokens.T.reshape(x.shape))
    assert seen["decoded"] is seen["y"]


def test_every_stage_of_enc_goes_through_mamba_before_it_is_a_skip():
    network = tiny(UMambaEnc, 2).eval()
    outputs = []
    for layer in network.mamba_layers:
        layer.register_forward_hook(lambda _, __, output: outputs.append(output))
    skips = []
    network.decoder.register_forward_pre_hook(lambda _, inputs: skips.extend(inputs[0]))
    network(torch.randn(1, 2, 8, 8))
    assert [tuple(s.shape[1:]) for s in skips] == [(4, 8, 8), (6, 4, 4), (8, 4, 2)]
    assert all(skip is output for skip, output in zip(skips, outputs, strict=True))


@BOTH
def test_residual_blocks_start_as_nnunets(network_class):
    """He's initialisation, and the last norm before each addition at 0."""
    network = tiny(network_class, 2)
    network.apply(network.initialize)
    assert not network.encoder.stages[1].blocks[0].conv2.norm.weight.any()
    assert network.encoder.stages[1].blocks[0].conv1.norm.weight.all()
    assert torch.isfinite(network(torch.randn(1, 2, 8, 8))).all()


@pytest.mark.slow
def test_compiles_without_a_graph_break():
    """nnU-Net compiles networks by default on CUDA."""
    network = tiny(UMambaEnc, 2).eval()
    image = torch.randn(1, 2, 8, 8)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(image), network(image))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_autocast_stays_finite_and_close(dtype):
    torch.manual_seed(0)
    network = tiny(UMambaEnc, 2).eval()
    image = torch.randn(1, 2, 16, 16)
    expected = network(image)
    with torch.autocast("cpu", dtype=dtype):
        logits = network(image)
    assert torch.isfinite(logits).all()
    assert (logits.float() - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mamba_computes_in_float32_under_autocast(dtype):
    """Its output may be larger than float16 holds."""
    torch.manual_seed(0)
    layer, x = MambaLayer(8), torch.randn(1, 8, 5, 6).to(dtype)
    with torch.no_grad():
        layer.mamba.D.fill_(1e6)
        expected = layer(x.float())
        with torch.autocast("cpu", dtype):
            out = layer(x)
    assert expected.abs().max() > torch.finfo(torch.float16).max
    torch.testing.assert_close(out, expected)

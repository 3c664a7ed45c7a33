"""True counts: by hand, on the meta device as with the compiled operators, whatever backend is requested."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunetv2_lightm import LightMUNet
from nnunetv2_lightm.complexity.counting import TrueCount, forward_cost, mamba_passed_over, on_meta, true_count
from nnunetv2_lightm.layers import Mamba1Block, RVMLayer
from nnunetv2_lightm.ops.backends import ENVIRONMENT_VARIABLE, cpu_native


def test_convolutions_and_products_by_hand():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
        nn.ConvTranspose2d(8, 4, 2, stride=2),
        nn.Flatten(),
        nn.Linear(4 * 10 * 12, 7),
    )
    pixels = 5 * 6
    macs = pixels * 8 * 3 * 9 + pixels * 8 * 9 + pixels * 8 * 4 * 4 + 4 * 10 * 12 * 7
    parameters = (8 * 3 * 9 + 8) + 8 * 9 + (8 * 4 * 4 + 4) + (4 * 10 * 12 * 7 + 7)
    assert true_count(network.to("meta"), (3, 5, 6)) == TrueCount(parameters, macs, 0, 0)


def test_mamba_by_hand():
    """Gu & Dao 2023: five products, a causal convolution of 4 tokens, and a scan with skip and gate."""
    d_model, d_inner, d_state, rank, length = 32, 64, 16, 2, 10
    products = d_model * 2 * d_inner + d_inner * (rank + 2 * d_state) + rank * d_inner + d_inner * d_model
    network = nn.Sequential(nn.Linear(d_model, d_model), Mamba1Block(d_model)).to("meta")
    found = true_count(network, (length, d_model))
    # nn.Linear sees each token alike; the padding gives the convolution 3 tokens more, which are cut off.
    in_mamba = length * products + (length + 3) * 4 * d_inner
    assert (found.macs, found.mamba_macs) == (length * d_model**2 + in_mamba, in_mamba)
    assert found.scan_flops == 9 * length * d_inner * d_state + 2 * length * d_inner
    assert found.macs_with_scan == found.macs + found.scan_flops / 2


@pytest.mark.parametrize("size", [(20, 24, 12), (40, 28)], ids=["3D", "2D"])
def test_compiled_operators_count_as_those_that_they_stand_for(size):
    reason = cpu_native.not_supported_reason("cpu")
    if reason:
        pytest.skip(f"cpu_native: {reason}")
    network = LightMUNet(2, 3, spatial_dims=len(size)).eval()
    assert all(layer.fused("cpu") for layer in network.modules() if isinstance(layer, RVMLayer))
    macs, scan_flops = forward_cost(network, (2, *size))
    assert macs > 0 and scan_flops > 0
    assert forward_cost(network.to("meta"), (2, *size)) == (macs, scan_flops)


@pytest.mark.parametrize("backend", ["reference", "cpu_native", "mamba_ssm_cuda"])
def test_the_backend_does_not_matter(backend, monkeypatch):
    network = on_meta(lambda: LightMUNet(1, 2, spatial_dims=2, features=8))
    expected = true_count(network, (1, 32, 32))
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, backend)
    assert true_count(network, (1, 32, 32)) == expected


def test_a_network_is_built_without_numbers_but_those_that_decide():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.large = nn.Linear(1 << 20, 1 << 20)  # 4 TiB
            rates = [rate.item() for rate in torch.linspace(0, 1, 3)]
            self.small = nn.Parameter(torch.tensor(rates))

    network = on_meta(Network)
    assert all(parameter.is_meta for parameter in network.parameters())
    assert network.small.shape == (3,)
    # Afterwards tensors are what they were.
    assert torch.empty(2).device.type == "cpu"


def test_mamba_is_passed_over_for_a_while():
    block = Mamba1Block(16)
    x = torch.randn(1, 5, 16)
    y = block(x)
    with mamba_passed_over(nn.Sequential(block)) as blocks:
        assert blocks == [block] and block(x) is x
    assert torch.equal(block(x), y) and not torch.equal(y, x)

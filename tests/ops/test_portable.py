"""The scan in portable operators against the specification."""

from __future__ import annotations

import pytest
import torch

from nnunetv2_lightm import LightMUNet
from nnunetv2_lightm.ops import portable_operators, select_backend, selective_scan_reference
from nnunetv2_lightm.ops.portable import CHUNK, selective_scan_portable


@pytest.mark.parametrize("length", [0, 1, 5, CHUNK, CHUNK + 1, 3 * CHUNK - 7])
@pytest.mark.parametrize("options", [True, False])
def test_scan_is_the_specification(length, options):
    torch.manual_seed(0)
    batch, channels, states = 2, 6, 4
    u, delta, z = (torch.randn(batch, length, channels, dtype=torch.float64) for _ in range(3))
    B, C = (torch.randn(batch, length, states, dtype=torch.float64) for _ in range(2))
    A, D, bias = -torch.rand(channels, states, dtype=torch.float64), torch.randn(channels), torch.randn(channels)
    extra = (D, z, bias, True) if options else (None, None, None, False)
    delta = delta if options else delta.abs()
    found = selective_scan_portable(u, delta, A, B, C, *extra)
    expected = selective_scan_reference(u, delta, A, B, C, *extra)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.slow
def test_networks_are_put_together_from_portable_operators():
    torch.manual_seed(0)
    network, image = LightMUNet(1, 2, spatial_dims=2).eval(), torch.randn(1, 1, 16, 24)
    with torch.no_grad():
        expected = network(image)
        with portable_operators():
            program = torch.export.export(network, (image,))
            assert select_backend("cpu") == "portable"
    assert select_backend("cpu") != "portable"
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not [target for target in targets if "nnunetv2_lightm" in target]
    torch.testing.assert_close(program.module()(image), expected, atol=1e-4, rtol=1e-4)

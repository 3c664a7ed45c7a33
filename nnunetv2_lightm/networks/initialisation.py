"""Initial weights with which LightMUNet starts near the identity; the paper does not give its initialisation."""

from __future__ import annotations

import math

import torch
from torch import nn

from ..layers import DecoderBlock, RVMLayer
from .lightm_unet import Stem

NOISE = 0.5


@torch.no_grad()
def initialise_near_identity(network: nn.Module) -> None:
    """Redraw the pointwise layers between the blocks, so that every RVM layer passes its input on.

    No skip connection bypasses a Projection: with PyTorch's initial weights there are nine random maps in a row between
    the image and the Bottleneck Block's output. Here

    - a Projection, equation (2), is the identity, stacked twice if it doubles the channels, plus normal noise;
    - the layers that halve the channels after a Decoder Block, and the stem's, preserve the variance of their input.

    Their biases are 0. The VSS Modules and the heads stay as they are.
    """
    for module in network.modules():
        if isinstance(module, RVMLayer):
            _near_identity(module.projection)
        elif isinstance(module, DecoderBlock):
            _keeping_variance(module.halve)
        elif isinstance(module, Stem):
            _keeping_variance(module.pointwise)


def _near_identity(layer: nn.Linear) -> None:
    outputs, inputs = layer.weight.shape
    identity = torch.eye(inputs, dtype=layer.weight.dtype, device=layer.weight.device)
    copies = identity.repeat(math.ceil(outputs / inputs), 1)[:outputs]
    nn.init.normal_(layer.weight, std=NOISE / math.sqrt(inputs)).add_(copies)
    nn.init.zeros_(layer.bias)


def _keeping_variance(layer: nn.Linear) -> None:
    nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")  # gain 1
    nn.init.zeros_(layer.bias)

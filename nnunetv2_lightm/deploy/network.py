"""The network in a bundle: which networks are allowed, and how they are described."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..layers import RVMLayer
from ..networks import LightMUNet
from .errors import ExportError


def describe_network(network: nn.Module) -> dict[str, Any]:
    """A LightMUNet in the words of its constructor, read from its modules.

    Raises:
        ExportError: if it is another network, or one of Table 3's ablations, which the engine does not run.
    """
    if type(network) is not LightMUNet:
        raise ExportError(f"the network is {type(network).__name__}; the engine runs LightMUNet alone, of any trainer")
    layers = [layer for block in network.encoder for layer in block.layers] + list(network.bottleneck)
    other = {type(layer).__name__ for layer in layers if type(layer) is not RVMLayer}
    if other:
        raise ExportError(f"the network has {', '.join(sorted(other))}; the engine runs RVMLayer alone")
    vssm = layers[0].vssm
    features = network.stem.pointwise.out_features
    if len(vssm.ssms) != 1:
        raise ExportError(f"the network scans in {len(vssm.ssms)} directions; the engine in one")
    if features % 16:
        raise ExportError(f"the network has {features} features; the engine needs a multiple of 16")
    return {
        "type": "LightMUNet",
        "spatial_dims": network.stem.depthwise.weight.ndim - 2,
        "input_channels": network.stem.pointwise.in_features,
        "num_classes": network.decoder.seg_layers[0].pointwise.out_features,
        "features": features,
        "rvm_layers": [len(block.layers) for block in network.encoder],
        "bottleneck_rvm_layers": len(network.bottleneck),
        "expand": vssm.in_proj.out_features // features,
        "d_state": vssm.ssms[0].d_state,
        "pooling": [list(block.stride) for block in network.encoder],
    }


def tensors_of(network: nn.Module, weights: dict[str, Tensor], half: bool, file: Path) -> dict[str, Tensor]:
    """The weights of one fold as they are stored: under the names that ``network`` has, float32, or with ``half``
    matrices and kernels in float16. Vectors and A_log, which enters an exponential, are small and stay in float32.
    A weight of several names, of which nnU-Net's own networks have many, stays one tensor, which a file holds once.

    Raises:
        ExportError: naming ``file``, if a weight is not finite, or too large for float16.
    """
    converted: dict[Any, Tensor] = {}
    tensors = {}
    for name in network.state_dict():
        tensor = weights[name]
        exactly = tensor.ndim < 2 or name.endswith("A_log")
        memory = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, exactly)
        if memory not in converted:
            converted[memory] = _converted(tensor, half and not exactly, f"{file}: the weight {name}")
        tensors[name] = converted[memory]
    return tensors


def _converted(tensor: Tensor, half: bool, what: str) -> Tensor:
    tensor = tensor.detach().to(torch.float32).contiguous()
    if not torch.isfinite(tensor).all():
        raise ExportError(f"{what} is NaN or infinite: the training has diverged")
    if half:
        tensor = tensor.to(torch.float16)
        if not torch.isfinite(tensor).all():
            raise ExportError(f"{what} is too large for float16; export with --float32")
    return tensor

"""Names of the network's tensors in the state dict, in the engine's order."""

from __future__ import annotations

from .interface import Network

RVM_NAMES = (
    "norm_in.weight",
    "norm_in.bias",
    "vssm.in_proj.weight",
    "vssm.gate_proj.weight",
    "vssm.dwconv.weight",
    "vssm.dwconv.bias",
    "vssm.ssms.0.x_proj.weight",
    "vssm.ssms.0.dt_proj.weight",
    "vssm.ssms.0.dt_proj.bias",
    "vssm.ssms.0.A_log",
    "vssm.ssms.0.D",
    "vssm.norm.weight",
    "vssm.norm.bias",
    "vssm.out_proj.weight",
    "scale",
    "norm_out.weight",
    "norm_out.bias",
    "projection.weight",
    "projection.bias",
)
DECODER_NAMES = ("dwconv.weight", "dwconv.bias", "scale", "halve.weight", "halve.bias")


def tensor_names(network: Network) -> list[str]:
    """Names in the state dict in the engine's order, ``tensor_elements`` in src/network.cpp."""
    names = [f"stem.{name}" for name in ("pointwise.weight", "pointwise.bias", "depthwise.weight", "depthwise.bias")]
    for level in range(network.levels):
        for layer in range(network.rvm_layers[level]):
            names += [f"encoder.{level}.layers.{layer}.{name}" for name in RVM_NAMES]
    for layer in range(network.bottleneck_layers):
        names += [f"bottleneck.{layer}.{name}" for name in RVM_NAMES]
    for block in range(network.levels):
        names += [f"decoder.blocks.{block}.{name}" for name in DECODER_NAMES]
    head = ("depthwise.weight", "depthwise.bias", "pointwise.weight", "pointwise.bias")
    return [*names, *(f"decoder.seg_layers.0.{name}" for name in head)]

"""FLOPs of our registered operators, in the form that ``torch.utils.flop_counter.FlopCounterMode`` takes.

That counter knows PyTorch's own convolutions and matrix products, counts 2 FLOPs per multiply-add (MAC), and would miss
our operators. A fused operator has two formulas: for its dense part, and for its scan. All arguments are shapes instead
of tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

import torch

from ..ops.rvm_layer import PARAMETERS as RVM_PARAMETERS

Shape = Sequence[int]
Formulas = Mapping[Callable, Callable[..., int]]
# The weights that an RVM layer multiplies each token with, each used once per token.
DENSE_IN_RVM = ("in_proj", "gate_proj", "conv_weight", "x_proj", "dt_weight", "out_proj", "projection_weight")


def selective_scan_flops(batch: int, length: int, d_inner: int, d_state: int, *, skip: bool, gate: bool) -> int:
    """9 per token, channel and state; plus 1 per token and channel for the skip D, and 1 for the gate z.

    Source: https://github.com/state-spaces/mamba/issues/110, as in VMamba. Exponentials count as 1 FLOP, the
    softplus and the SiLU as none.
    """
    return batch * length * d_inner * (9 * d_state + skip + gate)


def _scan(u: Shape, delta: Shape, A: Shape, B: Shape, C: Shape, D: Shape | None, z: Shape | None, *_, **__) -> int:
    return selective_scan_flops(*u, A[1], skip=D is not None, gate=z is not None)


def _dense_in_rvm(x: Shape, parameters: Sequence[Shape], *_, **__) -> int:
    weights = dict(zip(RVM_PARAMETERS, parameters, strict=True))
    return 2 * prod(x[:-1]) * sum(prod(weights[name]) for name in DENSE_IN_RVM)


def _scan_in_rvm(x: Shape, parameters: Sequence[Shape], *_, **__) -> int:
    d_inner, d_state = dict(zip(RVM_PARAMETERS, parameters, strict=True))["A"]
    return selective_scan_flops(x[0], prod(x[1:-1]), d_inner, d_state, skip=True, gate=False)


def _depthwise(surroundings: int, x: Shape, size: Shape, parameters: Sequence[Shape], *_, **__) -> int:
    """Convolution and pointwise layer work on the output's voxels; biases, with one axis, do not count."""
    return 2 * x[0] * prod(size) * sum(prod(shape) for shape in parameters if len(shape) > 1)


_OURS = torch.ops.nnunetv2_lightm
DENSE_FLOPS: Formulas = {_OURS.rvm_layer: _dense_in_rvm, _OURS.depthwise: _depthwise}
SCAN_FLOPS: Formulas = {_OURS.selective_scan: _scan, _OURS.rvm_layer: _scan_in_rvm}

"""The RVM layer: equations (1) to (3) of the paper and the pooling after them, recomputed in the backward pass.

The scan's checkpoints and the pooling's argmax are saved; the caller saves the layer's input. The steps, with their
dtypes under autocast, are those of :class:`nnunetv2_lightm.layers.RVMLayer`: products and the convolution in autocast's
dtype; norms, scan, gate and residual in float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import TRITON
from ..native_interface import RVM_PARAMETERS
from ..triton_kernels import rows as triton_rows
from ..triton_kernels import selection as triton_selection
from . import pieces, rows, selection
from .parameters import Gradients, in_dtypes
from .slabs import Slab, slab_height, slabs_of

# Those that enter a product or the convolution.
_MULTIPLIED = {"in_proj", "gate_proj", "conv_weight", "conv_bias", "x_proj", "dt_weight", "out_proj"}
_MULTIPLIED |= {"projection_weight", "projection_bias"}


def checkpoint_count(spatial: Sequence[int], channels: int, pool: Sequence[int], scan: ModuleType) -> int:
    """Number of checkpointed states per image, for a map of this size, whose sizes may be symbols (torch.export)."""
    planes, per_plane = spatial[0], math.prod(spatial[1:])
    height = torch.sym_min(slab_height(spatial, channels, pool[0]), planes)
    whole, rest = planes // height, planes % height
    return whole * scan.checkpoint_count(height * per_plane) + scan.checkpoint_count(rest * per_plane)


def forward(
    x: Tensor,
    parameters: Sequence[Tensor],
    pool: Sequence[int],
    keep_checkpoints: bool,
    scan: ModuleType,
    wide: torch.dtype,
    product_dtype: torch.dtype,
    out_dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """Forward pass, for contiguous inputs.

    Args:
        x: (batch, *spatial, channels), any floating dtype.
        parameters: In the order of ``RVM_PARAMETERS``.
        pool: Window and stride of the pooling.
        keep_checkpoints: Whether to keep checkpoints for the backward pass.
        scan: A backend of the scan that can start from a given state.
        wide: float32 or float64.
        product_dtype: Dtype of the matrix products and the convolution.
        out_dtype: Dtype of the output.

    Returns: the output (batch, *pooled, out_channels); checkpoints (batch, chunks, d_state, d_inner) and argmax, uint8,
        both empty if they are not kept.
    """
    layer = _Layer(parameters, scan, wide, product_dtype)
    pooled = [size // stride for size, stride in zip(x.shape[1:-1], pool, strict=True)]
    out = x.new_empty((x.shape[0], *pooled, layer.projection_weight.shape[0]), dtype=out_dtype)
    chunks = checkpoint_count(x.shape[1:-1], x.shape[-1], pool, scan) if keep_checkpoints else 0
    shape = (x.shape[0], chunks, *layer.A.t().shape) if keep_checkpoints else (0,)
    checkpoints = x.new_empty(shape, dtype=wide)
    pools = max(pool) > 1
    argmax = torch.empty(out.shape if keep_checkpoints and pools else 0, dtype=torch.uint8, device=x.device)
    if not (x.numel() and out.numel()):
        return out, checkpoints, argmax

    state, chunk = None, 0
    for slab in slabs_of(x.shape[0], x.shape[1:-1], x.shape[-1], pool[0]):
        if slab.first == 0:
            state, chunk = None, 0
        steps = _Steps(layer, slab, x)
        *_, u = steps.convolved(keep=False)
        first, chunk = chunk, chunk + scan.checkpoint_count(u.shape[1])
        kept = checkpoints[slab.images, first:chunk] if keep_checkpoints else None
        y, state = layer.ssm.forward(u, layer.ssm.select(u), kept, state)
        del u
        result = steps.projected(y)
        del y, steps
        where = _pooled(slab, pool)
        if not pools:
            out[where] = result
        elif where[1].start < where[1].stop:
            place = argmax[where] if keep_checkpoints else None
            pieces.max_pool(result, pool, out[where], place, layer.in_triton)
    return out, checkpoints, argmax


def backward(
    grad_out: Tensor,
    checkpoints: Tensor,
    argmax: Tensor,
    x: Tensor,
    parameters: Sequence[Tensor],
    pool: Sequence[int],
    scan: ModuleType,
    wide: torch.dtype,
    product_dtype: torch.dtype,
) -> tuple[Tensor, list[Tensor]]:
    """Gradients of x, in its dtype, and of the parameters, wide, from what ``forward`` has kept."""
    layer = _Layer(parameters, scan, wide, product_dtype)
    grad_x = torch.zeros_like(x)
    if not (x.numel() and grad_out.numel()):
        return grad_x, layer.gradients.sums()

    grad_state, chunk = None, 0
    for slab in reversed(slabs_of(x.shape[0], x.shape[1:-1], x.shape[-1], pool[0])):
        if slab.last == slab.planes:
            grad_state, chunk = None, checkpoints.shape[1]
        tokens = (slab.last - slab.first) * math.prod(x.shape[2:-1])
        begin = chunk - scan.checkpoint_count(tokens)
        states, chunk = checkpoints[slab.images, begin:chunk].contiguous(), begin

        shape = (*x[slab.own].shape[:-1], layer.projection_weight.shape[0])
        where = _pooled(slab, pool)
        grad = grad_out[where]
        layer.gradients.add(projection_bias=pieces.column_sums(grad, wide))
        if max(pool) > 1:
            grad = pieces.max_pool_backward(grad, argmax[where], pool, shape, product_dtype, layer.in_triton)
        grad_state = _Steps(layer, slab, x).backward(grad.to(product_dtype), states, grad_state, grad_x)
        layer.gradients.end_slab()
    return grad_x, layer.gradients.sums()


def _pooled(slab: Slab, pool: Sequence[int]) -> tuple[slice, slice]:
    return slab.images, slice(slab.first // pool[0], slab.last // pool[0])


class _Layer:
    """The parameters in the dtypes in which they are used, the sums of their gradients, and what all slabs share."""

    def __init__(self, parameters: Sequence[Tensor], scan: ModuleType, wide: torch.dtype, product: torch.dtype) -> None:
        self.backend, self.wide, self.product, self.in_triton = scan, wide, product, scan.NAME == TRITON
        self.rows = triton_rows if self.in_triton else rows
        self.gradients = Gradients(dict(zip(RVM_PARAMETERS, parameters, strict=True)), wide)
        dtypes = [product if name in _MULTIPLIED else wide for name in RVM_PARAMETERS]
        given = [p.contiguous() for p in parameters]
        for name, tensor in zip(RVM_PARAMETERS, in_dtypes(given, dtypes), strict=True):
            setattr(self, name, tensor)
        kind = triton_selection.Selection if self.in_triton else selection.Selection
        self.ssm = kind(scan, self.x_proj, self.dt_weight, self.A, self.D, self.dt_bias)

    def product_backward(self, name: str, grad: Tensor, x: Tensor) -> Tensor:
        """Gradient of x in ``x @ weight.T``; adds the weight's gradient."""
        self.gradients.add(**{name: pieces.weight_gradient(grad, x)})
        return grad @ getattr(self, name)


class _Steps:
    """A slab on its way through the layer, and the gradient on its way back."""

    def __init__(self, layer: _Layer, slab: Slab, x: Tensor) -> None:
        self.layer, self.slab = layer, slab
        self.x = x[slab.own]
        self.around = x[slab.halo].contiguous()
        self.n = layer.rows.norm(self.around, layer.norm_in_weight, layer.norm_in_bias, layer.product)
        self.n_own = self.n[:, slab.inner].contiguous()

    def convolved(self, keep: bool) -> tuple[Tensor, Tensor | None, Tensor]:
        """in_proj's map with the halo, its convolution if ``keep``, and that one's SiLU, (images, tokens, channels)."""
        layer = self.layer
        h = F.linear(self.n, layer.in_proj)
        convolution = (self.slab.beyond, layer.conv_weight, layer.conv_bias, layer.in_triton)
        convolved, u = pieces.depthwise_silu(h, *convolution, keep)
        return h, convolved, u.flatten(1, -2)

    def projected(self, y: Tensor) -> Tensor:
        """Equations (1) and (2), before the pooling, from the scan's output."""
        layer = self.layer
        gate = F.linear(self.n_own, layer.gate_proj)
        gated = layer.rows.gated_norm(y.view(gate.shape), layer.norm_weight, layer.norm_bias, gate)
        del gate
        return F.linear(
            self._normed_out(F.linear(gated, layer.out_proj)), layer.projection_weight, layer.projection_bias
        )

    def _normed_out(self, mixed: Tensor) -> Tensor:
        """LayerNorm'(m), m = VSSM(LN(x)) + s * x."""
        layer = self.layer
        norm = (layer.norm_out_weight, layer.norm_out_bias)
        return layer.rows.residual_norm(mixed, self.x, layer.scale, *norm)

    def backward(self, grad: Tensor, states: Tensor, grad_state: Tensor | None, grad_x: Tensor) -> Tensor:
        """Adds to grad_x and to the layer's gradients.

        Args:
            grad: Gradient of the layer's output before the pooling, in the products' dtype.
            states: The slab's checkpoints.
            grad_state: Gradient of the state after the slab; None: zero.
            grad_x: Gradient of the whole batch's input.

        Returns: The gradient of the state before the slab.
        """
        layer, slab = self.layer, self.slab
        h, convolved, u = self.convolved(keep=True)
        selected = layer.ssm.select(u)
        grad_y, grad_gate = self._through_output(layer.ssm.replay(states, u, selected), grad, grad_x)
        del grad
        inputs = (states, convolved.flatten(1, -2), u, selected)
        grad_c, grad_state = layer.ssm.backward(grad_y, grad_state, *inputs, layer.gradients)
        grad_c = grad_c.view(convolved.shape)
        del u, selected, grad_y, convolved, inputs

        grad_h, grad_weight, grad_bias = pieces.depthwise_backward(
            grad_c, h, slab.beyond, layer.conv_weight, layer.wide, layer.in_triton
        )
        layer.gradients.add(conv_weight=grad_weight, conv_bias=grad_bias)
        del grad_c, h
        # The norm's backward pass is linear in its gradient: here planes of the halo get this slab's contribution.
        grad_n = layer.product_backward("in_proj", grad_h, self.n)
        del grad_h
        layer.gradients.add(gate_proj=pieces.weight_gradient(grad_gate, self.n_own))
        pieces.add_product(grad_n[:, slab.inner], grad_gate, layer.gate_proj)
        del grad_gate
        norm = layer.rows.norm_backward(grad_n, self.around, layer.norm_in_weight, grad_x[slab.halo])
        layer.gradients.add(norm_in_weight=norm[0], norm_in_bias=norm[1])
        return grad_state

    def _through_output(self, y: Tensor, grad: Tensor, grad_x: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of y, wide, and of the gate's projection; adds the residual's to grad_x."""
        layer = self.layer
        gate = F.linear(self.n_own, layer.gate_proj)
        y, norm = y.view(gate.shape), (layer.norm_weight, layer.norm_bias)
        gated = layer.rows.gated_norm(y, *norm, gate)
        mixed = F.linear(gated, layer.out_proj)
        grad = layer.product_backward("projection_weight", grad, self._normed_out(mixed))
        norm_out = (layer.scale, layer.norm_out_weight, layer.norm_out_bias)
        grad, *sums = layer.rows.residual_norm_backward(grad, mixed, self.x, *norm_out, grad_x[self.slab.own])
        layer.gradients.add(norm_out_weight=sums[0], norm_out_bias=sums[1], scale=sums[2])
        del mixed
        grad = layer.product_backward("out_proj", grad, gated)
        del gated
        grad_y, grad_gate, *sums = layer.rows.gated_norm_backward(grad, y, *norm, gate)
        layer.gradients.add(norm_weight=sums[0], norm_bias=sums[1])
        return grad_y.flatten(1, -2), grad_gate

"""The RVM layer's steps on each voxel between its products: norms, gate, residual, and their gradients, in PyTorch.

:mod:`..triton_kernels.rows` has the same functions, each a single kernel that reads its maps once. Maps are contiguous,
(..., channels), of any floating dtype; weight, bias and scale are wide, float32 or float64, like all computations and
like the gradients of these three.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-5  # of nn.LayerNorm


def norm(x: Tensor, weight: Tensor, bias: Tensor, out_dtype: torch.dtype) -> Tensor:
    """LayerNorm."""
    return F.layer_norm(x.to(weight.dtype), x.shape[-1:], weight, bias, EPSILON).to(out_dtype)


def gated_norm(x: Tensor, weight: Tensor, bias: Tensor, gate: Tensor) -> Tensor:
    """``LayerNorm(x) * SiLU(gate)``, in the gate's dtype."""
    return norm(x, weight, bias, weight.dtype).mul_(F.silu(gate)).to(gate.dtype)


def residual_norm(add: Tensor, x: Tensor, scale: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``LayerNorm(add + scale * x)``, in add's dtype."""
    return norm(_residual(add, x, scale), weight, bias, add.dtype)


def norm_backward(grad: Tensor, x: Tensor, weight: Tensor, grad_x: Tensor) -> tuple[Tensor, Tensor]:
    """Backward pass of :func:`norm`: adds to grad_x; returns the gradients of weight and bias."""
    grad, grad_weight, grad_bias = _backward(grad, x.to(weight.dtype), weight)
    grad_x += grad.to(grad_x.dtype)
    return grad_weight, grad_bias


def residual_norm_backward(
    grad: Tensor, add: Tensor, x: Tensor, scale: Tensor, weight: Tensor, bias: Tensor, grad_x: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Backward pass of :func:`residual_norm`: adds to grad_x; returns the gradients of add, weight, bias and scale."""
    grad, grad_weight, grad_bias = _backward(grad, _residual(add, x, scale), weight)
    grad_x += (grad * scale).to(grad_x.dtype)
    return grad.to(add.dtype), grad_weight, grad_bias, _sums(grad * x)


def gated_norm_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, gate: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Backward pass of :func:`gated_norm`: gradients of x, gate, weight and bias."""
    out = norm(x, weight, bias, weight.dtype)
    grad_gate = torch.ops.aten.silu_backward((out * grad).to(gate.dtype), gate)
    del out
    grad_x, grad_weight, grad_bias = _backward(grad * F.silu(gate), x.to(weight.dtype), weight)
    return grad_x.to(x.dtype), grad_gate, grad_weight, grad_bias


def _residual(add: Tensor, x: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(add.to(scale.dtype), scale, x.to(scale.dtype))


def _backward(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a LayerNorm's input, weight and bias; x: wide."""
    normed, _, reciprocal = torch.native_layer_norm(x, x.shape[-1:], None, None, EPSILON)
    grad = grad.to(weight.dtype)
    sums = _sums(grad * normed), _sums(grad)
    grad = grad * weight
    along = torch.linalg.vecdot(grad, normed).unsqueeze(-1).div_(normed.shape[-1])
    grad = grad - grad.mean(-1, keepdim=True)
    return grad.addcmul_(normed, along, value=-1).mul_(reciprocal), *sums


def _sums(x: Tensor) -> Tensor:
    return x.flatten(0, -2).sum(0)

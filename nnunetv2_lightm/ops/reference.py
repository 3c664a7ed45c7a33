"""The specification: each operator in plain PyTorch, which every backend is tested against.

It can be differentiated any number of times and in every mode, and so replaces the operators where they have no
derivative of their own. It computes in float64 if an input is float64, otherwise in float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def selective_scan_reference(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    out_dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """S6 recurrence, one token after the other (Gu & Dao 2023, section 3.2, algorithm 2; eqs. 2a, 2b).

    ``h_t = exp(delta_t A) * h_{t-1} + delta_t B_t u_t`` and ``y_t = C_t h_t + D u_t``, then ``y_t * SiLU(z_t)``.
    Arguments are those of :func:`nnunetv2_lightm.ops.selective_scan`.

    Returns: y, (batch, length, d_inner); last state, (batch, d_inner, d_state), compute dtype.
    """
    out_dtype = out_dtype or u.dtype
    dtype = compute_dtype(u, delta, A, B, C, D, z, delta_bias)
    with torch.autocast(u.device.type, enabled=False):
        u, delta, A, B, C = (t.to(dtype) for t in (u, delta, A, B, C))
        if delta_bias is not None:
            delta = delta + delta_bias.to(dtype)
        if delta_softplus:
            delta = F.softplus(delta)

        h = u.new_zeros((u.shape[0], u.shape[2], A.shape[1]))
        ys = []
        for t in range(u.shape[1]):
            h = torch.exp(delta[:, t, :, None] * A) * h + (delta[:, t] * u[:, t])[..., None] * B[:, t, None, :]
            ys.append((h * C[:, t, None, :]).sum(-1))
        y = torch.stack(ys, 1) if ys else torch.zeros_like(u)

        if D is not None:
            y = y + D.to(dtype) * u
        if z is not None:
            y = y * F.silu(z.to(dtype))
    return y.to(out_dtype), h


def rvm_layer_reference(x: Tensor, parameters: Mapping[str, Tensor], pool: Sequence[int]) -> Tensor:
    """Equations (1) to (3) of the LightM-UNet paper and the max-pooling after them, as
    :func:`nnunetv2_lightm.ops.rvm_layer` computes them; parameters: by the names of its ``PARAMETERS``."""
    dtype = compute_dtype(x, *parameters.values())
    p = {name: tensor.to(dtype) for name, tensor in parameters.items()}
    d_state, rank = p["A"].shape[1], p["dt_weight"].shape[1]
    with torch.autocast(x.device.type, enabled=False):
        wide = x.to(dtype)
        normed = _layer_norm(wide, p["norm_in_weight"], p["norm_in_bias"])
        sequence = F.silu(_depthwise(F.linear(normed, p["in_proj"]), p["conv_weight"], p["conv_bias"]))
        tokens = sequence.flatten(1, -2)
        dt, B, C = F.linear(tokens, p["x_proj"]).split((rank, d_state, d_state), -1)
        delta = F.linear(dt, p["dt_weight"])
        y, _ = selective_scan_reference(tokens, delta, p["A"], B, C, p["D"], None, p["dt_bias"], True)
        w1 = _layer_norm(y.view(sequence.shape), p["norm_weight"], p["norm_bias"])
        w2 = F.silu(F.linear(normed, p["gate_proj"]))
        m = F.linear(w1 * w2, p["out_proj"]) + p["scale"] * wide  # (3), (1)
        normed = _layer_norm(m, p["norm_out_weight"], p["norm_out_bias"])
        out = F.linear(normed, p["projection_weight"], p["projection_bias"])  # (2)
        pooled = [size // stride for size, stride in zip(x.shape[1:-1], pool, strict=True)]
        if 0 in pooled:  # which PyTorch's pooling refuses
            out = out[(slice(None), *(slice(size) for size in pooled))]
        elif max(pool) > 1:
            max_pool = F.max_pool2d if x.ndim == 4 else F.max_pool3d
            out = max_pool(out.movedim(-1, 1), kernel_size=tuple(pool), stride=tuple(pool)).movedim(1, -1)
    return out.to(x.dtype)


def depthwise_conv_reference(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """:func:`nnunetv2_lightm.ops.depthwise_conv`."""
    dtype = compute_dtype(x, weight, bias)
    with torch.autocast(x.device.type, enabled=False):
        return _depthwise(x.to(dtype), weight.to(dtype), bias.to(dtype)).to(x.dtype)


def depthwise_stem_reference(image: Tensor, weight: Tensor, bias: Tensor, point: Tensor, point_bias: Tensor) -> Tensor:
    """:func:`nnunetv2_lightm.ops.depthwise_stem`."""
    dtype = compute_dtype(image, weight, bias, point, point_bias)
    with torch.autocast(image.device.type, enabled=False):
        features = F.linear(image.to(dtype).movedim(1, -1), point.to(dtype), point_bias.to(dtype))
        return _depthwise(features, weight.to(dtype), bias.to(dtype)).to(image.dtype)


def depthwise_head_reference(
    x: Tensor, size: Sequence[int], weight: Tensor, bias: Tensor, point: Tensor, point_bias: Tensor
) -> Tensor:
    """:func:`nnunetv2_lightm.ops.depthwise_head`."""
    dtype = compute_dtype(x, weight, bias, point, point_bias)
    mode = {4: "bilinear", 5: "trilinear"}[x.ndim]
    with torch.autocast(x.device.type, enabled=False):
        upsampled = F.interpolate(x.to(dtype).movedim(-1, 1), size=tuple(size), mode=mode).movedim(1, -1)
        convolved = _depthwise(upsampled, weight.to(dtype), bias.to(dtype))
        return F.linear(convolved, point.to(dtype), point_bias.to(dtype)).movedim(-1, 1).contiguous().to(x.dtype)


def compute_dtype(*tensors: Tensor | None) -> torch.dtype:
    """float64 if a tensor is float64, else float32."""
    wide = any(t is not None and t.dtype == torch.float64 for t in tensors)
    return torch.float64 if wide else torch.float32


def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weight, bias)


def _depthwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Channels-last, 3 taps per axis, zeros beyond the map."""
    conv = F.conv2d if x.ndim == 4 else F.conv3d
    return conv(x.movedim(-1, 1), weight, bias, padding=1, groups=x.shape[-1]).movedim(1, -1)

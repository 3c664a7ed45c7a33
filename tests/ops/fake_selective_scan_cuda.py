"""Stands in for mamba-ssm's compiled extension on the CPU: signatures, layouts and demands of its ``fwd`` and ``bwd``.

After state-spaces/mamba, csrc/selective_scan/selective_scan.cpp, for float32 and B and C that depend on the token: u,
delta, z, out and their gradients (batch, channels, length); B, C (batch, groups, states, length); A (channels, states);
x (batch, channels, chunks of 2048 tokens, 2 states), in turn the product of the decays from the first token to the
chunk's end and the state there. There is no gradient of the last state.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

CHUNK_LENGTH = 2048
calls = []


def fwd(u, delta, A, B, C, D_, z_, delta_bias_, delta_softplus, /):
    """[out, x], with a gate [out, x, out_z]: out is what comes before the gate."""
    calls.append("fwd")
    _check(u, delta, A, B, C, D_, z_, delta_bias_)
    *_, out, x = _scan(u, delta, A, B, C, D_, delta_bias_, delta_softplus)
    return [out, x] if z_ is None else [out, x, out * F.silu(z_)]


def bwd(u, delta, A, B, C, D_, z_, delta_bias_, dout, x_, out_, dz_, delta_softplus, recompute_out_z, /):
    """[du, ddelta, dA, dB, dC, dD, ddelta_bias], with a gate dz as well."""
    calls.append("bwd")
    _check(u, delta, A, B, C, D_, z_, delta_bias_, dout, out_)
    _demand(dz_ is None and not recompute_out_z, "not played here: dz_, recompute_out_z")
    dt, decays, states, out, x = _scan(u, delta, A, B, C, D_, delta_bias_, delta_softplus)
    chunks = x.shape[2]
    _demand(chunks == 1 or x_ is not None, "x_")
    if x_ is not None:
        _demand(x_.is_contiguous() and x_.dtype == torch.float32 and x_.shape == x.shape, "x_")
        # Each chunk but the first starts from the state after the one before.
        torch.testing.assert_close(x_[:, :, :-1, 1::2], x[:, :, :-1, 1::2], rtol=1e-4, atol=1e-5)
    dz = None
    if z_ is not None:
        _demand(out_ is not None, "out_")
        torch.testing.assert_close(out_, out, rtol=1e-4, atol=1e-4)
        sigmoid = torch.sigmoid(z_)
        dz = dout * out_ * sigmoid * (1 + z_ * (1 - sigmoid))
        dout = dout * F.silu(z_)
    du, ddelta, dA, dB, dC = (torch.zeros_like(t) for t in (u, delta, A, B, C))
    grad = torch.zeros_like(states[0])
    for t in reversed(range(u.shape[2])):
        grad = grad + dout[:, :, t, None] * C[:, :, :, t]
        dC[:, 0, :, t] = (dout[:, :, t, None] * states[t + 1]).sum(1)
        dB[:, 0, :, t] = (grad * (dt * u)[:, :, t, None]).sum(1)
        through_input = (grad * B[:, :, :, t]).sum(-1)
        grad = grad * decays[t]
        dA += (grad * states[t] * dt[:, :, t, None]).sum(0)
        ddelta[:, :, t] = (grad * states[t] * A).sum(-1) + through_input * u[:, :, t]
        du[:, :, t] = through_input * dt[:, :, t]
    if delta_softplus:
        ddelta *= torch.sigmoid(delta if delta_bias_ is None else delta + delta_bias_[:, None])
    dD = None if D_ is None else (dout * u).sum((0, 2))
    du = du if D_ is None else du + dout * D_[:, None]
    ddelta_bias = None if delta_bias_ is None else ddelta.sum((0, 2))
    grads = [du, ddelta, dA, dB, dC, dD, ddelta_bias]
    return grads if dz is None else [*grads, dz]


def _scan(u, delta, A, B, C, D, delta_bias, delta_softplus):
    """Step sizes, decays and states (the first one is zero) of each token, out and x."""
    dt = delta if delta_bias is None else delta + delta_bias[:, None]
    dt = F.softplus(dt) if delta_softplus else dt
    length = u.shape[2]
    states, decays, outs, xs = [u.new_zeros(*u.shape[:2], A.shape[1])], [], [], []
    product = torch.ones_like(states[0])
    for t in range(length):
        decays.append(torch.exp(dt[:, :, t, None] * A))
        states.append(decays[-1] * states[-1] + (dt * u)[:, :, t, None] * B[:, :, :, t])
        product = decays[-1] * product
        outs.append((states[-1] * C[:, :, :, t]).sum(-1))
        if (t + 1) % CHUNK_LENGTH == 0 or t + 1 == length:
            xs.append(torch.stack((product, states[-1]), -1).flatten(-2))
    out = torch.stack(outs, -1)
    return dt, decays, states, out if D is None else out + D[:, None] * u, torch.stack(xs, 2)


def _check(u, delta, A, B, C, D, z, delta_bias, dout=None, out=None):
    batch, channels, length = u.shape
    states = A.shape[1]
    _demand(states <= 256, "selective_scan only supports state dimension <= 256")
    _demand(A.shape == (channels, states), "A")
    for name, tensor in {"u": u, "delta": delta, "z": z, "dout": dout, "out": out}.items():
        _demand(tensor is None or tensor.shape == (batch, channels, length), name)
    for name, tensor in {"B": B, "C": C}.items():
        _demand(tensor.shape == (batch, 1, states, length), name)
    for name, tensor in {"D": D, "delta_bias": delta_bias}.items():
        _demand(tensor is None or tensor.shape == (channels,), name)
    for tensor in (u, delta, B, C, D, z, delta_bias, dout, out):
        _demand(tensor is None or tensor.stride(-1) == 1 or tensor.shape[-1] == 1, "stride")
    for tensor in (u, delta, A, B, C, D, z, delta_bias, dout, out):
        _demand(tensor is None or tensor.dtype == torch.float32, "dtype")


def _demand(fulfilled, what):
    if not fulfilled:
        raise RuntimeError(f"the kernel refuses: {what}")

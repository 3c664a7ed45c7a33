"""S6: the selective state space model with its input-dependent parameters (Gu & Dao 2023, algorithm 2)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import constant_in_graphs, selective_scan
from .plain import is_plain, stands_for

DT_MIN, DT_MAX = 1e-3, 0.1  # initial step sizes


class SelectiveSSM(nn.Module):
    """Computes delta, B and C from the sequence, learns A and D, and scans the sequence once.

    Args:
        d_inner: Channels of the sequence.
        d_state: States per channel, N.
        dt_rank: Rank of delta's projection.
    """

    def __init__(self, d_inner: int, *, d_state: int, dt_rank: int) -> None:
        super().__init__()
        self.dt_rank, self.d_state = dt_rank, d_state
        self.x_proj = nn.Linear(d_inner, dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(dt_rank, d_inner, bias=True)
        # A = -exp(A_log) stays negative; it starts at -1 ... -N (S4D-real), as in Mamba.
        self.A_log = nn.Parameter(torch.arange(1, d_state + 1, dtype=torch.float32).log().repeat(d_inner, 1))
        self.D = nn.Parameter(torch.ones(d_inner))
        self._initialise_step_sizes()

    def _initialise_step_sizes(self) -> None:
        """softplus(bias) is log-uniform in [DT_MIN, DT_MAX] (Gu & Dao 2023, section 3.6)."""
        nn.init.uniform_(self.dt_proj.weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
        dt = torch.empty(self.D.shape).uniform_(math.log(DT_MIN), math.log(DT_MAX)).exp()
        with torch.no_grad():
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))

    @property
    def A(self) -> Tensor:  # noqa: N802
        """State matrix, (d_inner, d_state), negative; float32, or float64 if the parameter is."""
        return -torch.exp(self.A_log.to(torch.promote_types(self.A_log.dtype, torch.float32)))

    def forward(self, u: Tensor, z: Tensor | None = None) -> Tensor:
        """Scans in float32 and returns the parameters' dtype; a gate z multiplies the output as SiLU(z).

        Under autocast that is float32, not u's dtype: nothing bounds the output before the LayerNorm that follows, and
        float16 ends at 65504.

        u, z: (batch, length, d_inner) -> (batch, length, d_inner).
        """
        dt, B, C = self.x_proj(u).split((self.dt_rank, self.d_state, self.d_state), dim=-1)
        if self._bias_goes_to_the_scan():
            delta, bias = F.linear(dt, self.dt_proj.weight), self.dt_proj.bias
        else:
            delta, bias = self.dt_proj(dt), None
        options = {"delta_softplus": True, "out_dtype": self.D.dtype}
        return selective_scan(u, delta, self.A, B, C, self.D, z, bias, **options)

    @constant_in_graphs
    def _bias_goes_to_the_scan(self) -> bool:
        """Whether the scan adds dt_proj's bias, in float32: if dt_proj is a plain linear layer without hooks."""
        return is_plain(self.dt_proj, called=False) and self.dt_proj.bias is not None


def _settings_agree(ssm: SelectiveSSM) -> bool:
    return ssm.D is not None and ssm.A_log is not None and ssm.A_log.shape[1] == ssm.d_state


stands_for(SelectiveSSM, ("A_log", "D"), ("x_proj", "dt_proj"), _settings_agree)

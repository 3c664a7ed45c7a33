"""The Vision State-Space Module (VSS Module), section 2.2 and figure 2 (b) of the paper."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from .depthwise import depthwise_conv
from .plain import stands_for
from .ssm import SelectiveSSM

# Whether to swap the two spatial axes and whether to reverse, per scan order; VMamba's cross-scan has all four.
SCAN_ORDERS = (
    {"transpose": False, "reverse": False},
    {"transpose": False, "reverse": True},
    {"transpose": True, "reverse": False},
    {"transpose": True, "reverse": True},
)


class VSSModule(nn.Module):
    """Equation (3): ``Linear(LayerNorm(SSM(SiLU(DWConv(Linear(x))))) * SiLU(Linear(x)))``.

    Choices where the paper is silent: the DWConv is 3x3(x3) on the image grid, as in VMamba, which the paper follows
    here; the linear layers have no bias, as in Mamba; the SSM is S6; the tokens are scanned in raster order, once.

    Args:
        d_model: Channels of input and output.
        spatial_dims: 2 or 3.
        expand: Expansion factor lambda.
        d_state: States per channel of the SSM.
        scan_directions: 1: raster order; 2: also its reverse; 4: VMamba's cross-scan (2D only). Each direction has
            its own SSM; the outputs are added.

    Raises:
        ValueError: for another number of scan directions, or 4 of them in 3D.
    """

    def __init__(
        self, d_model: int, spatial_dims: int, *, expand: int = 2, d_state: int = 16, scan_directions: int = 1
    ) -> None:
        super().__init__()
        if scan_directions not in (1, 2, 4) or (scan_directions == 4 and spatial_dims != 2):
            given = f"scan_directions is {scan_directions} in {spatial_dims}D"
            raise ValueError(f"{given}; expected 1, 2 or, in 2D only, 4")
        d_inner = expand * d_model
        self.in_proj = nn.Linear(d_model, d_inner, bias=False)
        self.gate_proj = nn.Linear(d_model, d_inner, bias=False)
        self.dwconv = depthwise_conv(d_inner, spatial_dims)
        dt_rank = math.ceil(d_model / 16)
        self.ssms = Scans(SelectiveSSM(d_inner, d_state=d_state, dt_rank=dt_rank) for _ in range(scan_directions))
        self.norm = nn.LayerNorm(d_inner)
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, *spatial, d_model) -> the same shape."""
        w1 = self.norm(self.ssms(F.silu(self.dwconv(self.in_proj(x)))))
        w2 = F.silu(self.gate_proj(x))
        return self.out_proj(w1 * w2)


class Scans(nn.ModuleList):
    """One SSM for each of the first scan orders."""

    def forward(self, x: Tensor) -> Tensor:
        """The sum of the scans over the orders; x: (batch, *spatial, d_inner) -> the same shape."""
        result = None
        for ssm, order in zip(self, SCAN_ORDERS, strict=False):
            grid = x.transpose(1, 2) if order["transpose"] else x
            tokens = grid.flatten(1, -2)
            y = ssm(tokens.flip(1)).flip(1) if order["reverse"] else ssm(tokens)
            y = y.view(grid.shape)
            y = y.transpose(1, 2) if order["transpose"] else y
            result = y if result is None else result + y
        return result


stands_for(Scans, children=("0",))
stands_for(VSSModule, children=("in_proj", "gate_proj", "dwconv", "ssms", "norm", "out_proj"))

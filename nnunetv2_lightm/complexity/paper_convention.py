"""The paper's way of counting: ``thop.profile`` for the whole batch, on Mamba's fused path.

How thop 0.1.1 counts, and so what the paper's columns mean:

- A "FLOP" is a multiply-add, a MAC, and those of the whole batch are counted.
- It counts modules, by forward hooks, and only types for which it has a rule: parameters outside such modules count 0,
  among them adjustment factors, position embeddings, Swin's bias tables and GroupNorm's parameters.
- Mamba's fused path passes the weights of its layers to one kernel without calling the layers, so no hook runs: all of
  Mamba counts as 0 parameters and 0 MACs. Here Mamba's layers are modules that are called, so :func:`paper_count` makes
  each block return its input; its layers are then not called, as on the fused path.
- A module that is registered n times gets n hooks, and their sum is added n times. In nnU-Net's and U-Mamba's networks
  each convolution of a block is registered twice, and the encoder once more inside the decoder: of encoder E, decoder
  blocks D, transposed convolutions T and segmentation heads S, thop counts 4 E + 2 D + T + S parameters and
  16 E + 4 D + T + S MACs.
"""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from packaging.version import Version
from torch import Tensor, nn

from ..networks.lightm_unet_released import Resize
from .counting import mamba_passed_over
from .errors import ThopMissing

VERSION = "0.1.1.post2209072238"
INSTALL = f"pip install thop=={VERSION}"


@dataclass(frozen=True)
class PaperCount:
    """thop's two numbers.

    Attributes:
        parameters: Parameters that thop sees, counted as often as it sees them.
        macs: MACs of the whole batch, as thop counts them; the paper's "FLOPs".
    """

    parameters: int
    macs: int


def paper_count(network: nn.Module, batch_shape: Sequence[int]) -> PaperCount:
    """Profile a network as the paper did.

    Args:
        network: A network on the meta device, not used otherwise: thop leaves hooks and buffers in it.
        batch_shape: (batch, channels, *spatial).

    Raises: ThopMissing: if thop is not installed, or in another version.
    """
    require_thop()
    from thop import profile

    with mamba_passed_over(network), _quiet():
        image = torch.empty(batch_shape, device="meta")
        macs, parameters = profile(network, (image,), custom_ops={Resize: _count_resize}, verbose=False)
    return PaperCount(int(parameters), int(macs))


def _count_resize(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    """thop's rule for nn.Upsample, which the released code resizes with; it has none for trilinear resizing."""
    from thop.vision.calc_func import calculate_upsample

    if output.ndim == 4:
        module.total_ops += calculate_upsample("bilinear", output.numel())


def require_thop() -> None:
    """Raises: ThopMissing: with the command that installs it."""
    try:
        installed = importlib.metadata.version("thop")
    except importlib.metadata.PackageNotFoundError:
        raise ThopMissing(f"the paper's counts are those of thop {VERSION}, which is missing: {INSTALL}") from None
    if Version(installed) != Version(VERSION):
        raise ThopMissing(f"the paper's counts are those of thop {VERSION}, but {installed} is installed: {INSTALL}")


@contextmanager
def _quiet():
    """Suppresses thop's messages on the root logger about trilinear interpolation, for which it has no rule."""

    def other(record: logging.LogRecord) -> bool:
        return "take it a zero op" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(other)
    try:
        yield
    finally:
        root.removeFilter(other)

"""Building blocks of the networks; feature maps are channels-last: (batch, *spatial, channels)."""

from .ablations import ABLATIONS
from .attention import SelfAttention
from .decoder import DecoderBlock, upsample
from .depthwise import depthwise_conv
from .mamba1 import Mamba1Block
from .plain import is_plain, stands_for
from .rvm import RVMLayer
from .ssm import SelectiveSSM
from .vss import VSSModule

__all__ = [
    "ABLATIONS",
    "DecoderBlock",
    "Mamba1Block",
    "RVMLayer",
    "SelectiveSSM",
    "SelfAttention",
    "VSSModule",
    "depthwise_conv",
    "is_plain",
    "stands_for",
    "upsample",
]

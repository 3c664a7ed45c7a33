"""Operators: the selective scan and its backends, and the fused RVM layer. The only place that knows a kernel."""

from .backends import BackendStatus, backend_table, portable_operators, select_backend
from .depthwise import (
    depthwise_conv,
    depthwise_head,
    depthwise_op,
    depthwise_stem,
    fused_depthwise_usable,
)
from .graphs import constant_in_graphs
from .reference import selective_scan_reference
from .rvm_layer import MAX_WINDOW, fused_rvm_layer_usable, rvm_layer, rvm_layer_op
from .selective_scan import selective_scan
from .upsample import gathered_upsample_usable, upsample, upsample_op

__all__ = [
    "MAX_WINDOW",
    "BackendStatus",
    "backend_table",
    "constant_in_graphs",
    "depthwise_conv",
    "depthwise_head",
    "depthwise_op",
    "depthwise_stem",
    "fused_depthwise_usable",
    "fused_rvm_layer_usable",
    "gathered_upsample_usable",
    "portable_operators",
    "rvm_layer",
    "rvm_layer_op",
    "select_backend",
    "selective_scan",
    "selective_scan_reference",
    "upsample",
    "upsample_op",
]

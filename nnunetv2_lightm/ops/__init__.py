"""Operators: the selective scan and its backends, and the fused RVM layer. The only place that knows a kernel."""

from .backends import BackendStatus, backend_table, select_backend
from .reference import selective_scan_reference
from .rvm_layer import fused_rvm_layer_usable, rvm_layer
from .selective_scan import selective_scan

__all__ = [
    "BackendStatus",
    "backend_table",
    "fused_rvm_layer_usable",
    "rvm_layer",
    "select_backend",
    "selective_scan",
    "selective_scan_reference",
]

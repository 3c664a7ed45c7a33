"""Operators: the selective scan and its backends. The only place that knows a kernel."""

from .backends import BackendStatus, backend_table, select_backend
from .reference import selective_scan_reference
from .selective_scan import selective_scan

__all__ = ["BackendStatus", "backend_table", "select_backend", "selective_scan", "selective_scan_reference"]

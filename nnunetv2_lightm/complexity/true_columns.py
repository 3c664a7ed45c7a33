"""The columns of true counts, which both reports have."""

from __future__ import annotations

from .counting import TrueCount

TRUE_HEADER = ("parameters", "GMACs", "in Mamba", "scan, GFLOPs", "GMACs with scan")
TRUE_LEGEND = """\
every parameter; the GMACs (10^9 multiplications with their addition) of convolutions and matrix products
  for one sample, each once; of these the ones inside Mamba; the GFLOPs of the scans, which are not matrix products;
  both together, where 2 FLOPs are worth a MAC."""


def true_cells(true: TrueCount) -> list[str]:
    """Cells in the order of ``TRUE_HEADER``."""
    amounts = (true.macs, true.mamba_macs, true.scan_flops, true.macs_with_scan)
    return [f"{true.parameters:,}", *map(giga, amounts)]


def true_record(true: TrueCount) -> dict[str, int]:
    """The same counts for CSV and JSON."""
    return {
        "true_parameters": true.parameters,
        "true_macs_sample": true.macs,
        "true_mamba_macs_sample": true.mamba_macs,
        "true_scan_flops_sample": true.scan_flops,
    }


def giga(count: float) -> str:
    return f"{count / 1e9:,.2f}"

"""Two files of one case, an image and its label or a prediction and its reference: do their voxels correspond?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..escaping import escape_name
from .check import ImageFacts
from .geometry import advice_on_headers, compare


@dataclass(frozen=True)
class Match:
    """How two files fit each other; all None: nnU-Net's integrity check considers them equal.

    Attributes:
        fault: Why their voxels do not correspond, in a sentence.
        warning: In the place of ``fault`` for nnU-Net, which goes by the voxels alone and only warns, if they differ
            in nothing but where they lie; continues a sentence that begins with the first file's name.
        note: By how much they differ, though by rounding alone.
    """

    fault: str | None = None
    warning: str | None = None
    note: str | None = None


def match(first: ImageFacts, second: ImageFacts) -> Match:
    """Compare shapes and geometries by the converters' rule; files without a geometry have only a shape."""
    ours, theirs = escape_name(first.path), escape_name(second.path)
    if first.shape != second.shape:
        return Match(f"{ours} is {_shape(first)} voxels and {theirs} {_shape(second)}")
    if first.grid is None or second.grid is None:
        return Match()
    difference = compare(first.grid, second.grid)
    if not difference.is_rounding:
        fault = (
            f"{ours} lies up to {difference.shift_mm:.4g} mm away from {theirs}: {first.grid.describe()}; and "
            f"{second.grid.describe()}. {advice_on_headers((ours, first.grid), (theirs, second.grid))}"
        )
        if not np.allclose(first.grid.spacing_mm, second.grid.spacing_mm):
            return Match(fault)
        return Match(fault, f"lies elsewhere than its partner: {difference.shift_mm:.4g} mm away from {theirs}")
    if not difference.equal:
        return Match(note=f"{ours} and {theirs} differ in their geometry, by {difference.shift_mm:.2g} mm at most")
    return Match()


def _shape(facts: ImageFacts) -> str:
    return " x ".join(map(str, facts.shape))

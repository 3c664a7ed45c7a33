"""Checks of image files before anything is computed from them: whole, finite, on one grid, with names that open.

Readers hide faults: SimpleITK reads NaN as 0, pads a truncated volume, and ignores half of a contradictory header. So
these checks, and no others, look at a file's own bytes; converters, evaluation, doctor and trainers share the rules.
No torch, and of the rest of the package only what runs on the standard library alone.
"""

from __future__ import annotations

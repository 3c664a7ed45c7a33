"""What image files must be before anything is computed from them: whole, finite, on one grid, with names that open.

Readers hide faults: SimpleITK puts 0 for NaN, fills up a truncated volume, and ignores half of a contradicting header.
So a file's own bytes are looked at, here and nowhere else; converters, evaluation, doctor and trainers share the rules.
No torch, and nothing else of the package.
"""

from __future__ import annotations

"""Argument types for numeric options, shared by every parser of this package.

Python's own int and float accept what no option means: infinity, NaN, negative sizes, ``1_000``.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable

MAX_DIGITS = 18  # fits into 64 bits, whatever reads the number later


def whole_number(*, at_least: int, at_most: int | None = None) -> Callable[[str], int]:
    """A type for ``add_argument``: a whole number within bounds."""
    bounds = (
        f"a whole number, {at_least} or more" if at_most is None else f"a whole number from {at_least} to {at_most}"
    )

    def whole_number(text: str) -> int:
        number = int(text) if re.fullmatch(rf"[-+]?[0-9]{{1,{MAX_DIGITS}}}", text) else None
        if number is None or number < at_least or (at_most is not None and number > at_most):
            raise argparse.ArgumentTypeError(f"{text!r}; expected {bounds}")
        return number

    return whole_number


def finite_number(unit: str, *, above: float | None = None, at_least: float | None = None) -> Callable[[str], float]:
    """A type for ``add_argument``: a finite number with an open or closed lower bound.

    Args:
        unit: Unit in the message, e.g. "mm".
        above: The number is greater.
        at_least: The number is not smaller; give this or `above`.
    """
    bound = f"above {above:g}" if at_least is None else f"{at_least:g} or more"

    def finite_number(text: str) -> float:
        number = float(text) if re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", text) else math.nan
        large_enough = number > above if at_least is None else number >= at_least
        if not (large_enough and number < math.inf):
            raise argparse.ArgumentTypeError(f"{text!r}; expected a finite number of {unit}, {bound}")
        return number

    return finite_number

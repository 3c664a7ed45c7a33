"""Pieces of a Markdown document; names must pass through :func:`...escaping.escape_markdown` first."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import numpy as np

from ...escaping import escape_terminal

MISSING = "-"


def code_block(text: str, language: str = "sh") -> str:
    """A fenced block, with a fence longer than any run of backticks in the text."""
    text = escape_terminal(text)
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def figure(path: str, description: str, caption: str) -> str:
    """An image with its caption below; both are Markdown, `path` is relative to the document."""
    return f"![{description}]({path})\n\n*{caption}*"


def collapsed(summary: str, content: str) -> str:
    """Content that opens on demand, on GitHub and in a browser; printers and screen readers show it."""
    return f"<details>\n<summary>{summary}</summary>\n\n{content}\n\n</details>"


def percent(score: float) -> str:
    return MISSING if math.isnan(score) else f"{100 * score:.2f}"


def amount(value: float | None, format_spec: str = ".3g") -> str:
    return MISSING if value is None else f"{value:{format_spec}}"


def millimetres(distance: float) -> str:
    return MISSING if math.isnan(distance) else f"{distance:.2f}"


def bold_best(
    means: Sequence[float],
    intervals: Sequence[np.ndarray],
    *,
    show: Callable[[float], str] = percent,
    best: Callable | None = max,
) -> list[str]:
    """A cell for each mean, with its interval in brackets if it has one; what shows the best mean is bold.

    Args:
        means: NaN for a method without one.
        intervals: Lower and upper end for each; NaN without one.
        show: Turns a number into text.
        best: `max` or `min`; None: the means cannot be compared, and none is bold.
    """
    top = best and best((show(mean) for mean in means if not math.isnan(mean)), key=float, default=None)
    cells = []
    for mean, (low, high) in zip(means, intervals, strict=True):
        around = "" if math.isnan(low) else f" ({show(low)}–{show(high)})"
        cells.append((f"**{show(mean)}**" if show(mean) == top else show(mean)) + around)
    return cells

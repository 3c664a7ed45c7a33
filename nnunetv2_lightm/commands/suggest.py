"""A suggestion for a mistyped word."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """The end of an error message: the nearest choice, if one is near, and the list of all."""
    choices = list(choices)
    folded = {choice.lower(): choice for choice in choices}
    near = get_close_matches(word.lower(), folded, n=1, cutoff=0.5)
    suggestion = f"; did you mean {folded[near[0]]!r}?" if near else "."
    return f"{suggestion} There are: {', '.join(choices)}."

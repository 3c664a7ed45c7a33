"""Keeps home folders out of results and reports, which are made to be shared."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from ..escaping import escape_shell

_USER = r"[^/\\\s'\":,;)]+"
_HOMES = rf"/(?:home|Users)/{_USER}|/root|[A-Za-z]:\\Users\\{_USER}"
# This repository's study, as it is started now and as earlier versions started it.
_STUDY = re.compile(r"python (?:-m benchmarks(?:\.\w+)+|benchmarks/(?:\w+/)*\w+\.py)(?: |$)")


def without_home(text: str) -> str:
    """Replace home folders by ``~``: the user's own, and any of the usual form."""
    pattern = rf"(?<![\w/.~-])(?:{re.escape(str(Path.home()))}|{_HOMES})(?=$|[/\\\s'\":,;)])"
    return re.sub(pattern, "~", text)


def shared_command(words: Sequence[str]) -> str:
    """A command as a shell line, with ``~`` for a home folder at the start of a word."""
    return " ".join(map(_word, words))


def command_again(command: str) -> str | None:
    """The command of results.json as a line to paste; None unless it calls ``benchmark`` or a study of this repository.

    The text of the file is never printed verbatim: it is split into words, which are quoted again.
    """
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    ours = words[:2] == ["nnUNetv2_lightm", "benchmark"] or _STUDY.match(" ".join(words))
    return shared_command(words) if ours else None


def _word(word: str) -> str:
    shortened = without_home(word)
    if shortened.startswith("~/"):  # in quotes a shell leaves ~ alone
        return f"~/{escape_shell(shortened[2:])}" if shortened != "~/" else shortened
    return escape_shell(word)

"""Keeps home folders out of results and reports, which are made to be shared."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from ..escaping import escape_shell

_USER = r"[^/\\\s'\":,;)]+"
_HOMES = rf"/(?:home|Users)/{_USER}|/root|[A-Za-z]:\\Users\\{_USER}"
_STUDY = re.compile(r"python -m benchmarks(?:\.\w+)+(?: |$)")  # of this repository


def without_home(text: str) -> str:
    """Replace home folders by ``~``: the user's own, and any of the usual form."""
    pattern = rf"(?<![\w/.~-])(?:{re.escape(str(Path.home()))}|{_HOMES})(?=$|[/\\\s'\":,;)])"
    return re.sub(pattern, "~", text)


def shared_words(words: Sequence[str]) -> tuple[str, ...]:
    """The words of a command, with ``~`` for a home folder at the start of a word or of an option's value.

    ``--option=/home/me/x`` becomes two words: a shell replaces ``~`` only where a word begins with it.
    """
    shared = []
    for word in words:
        option, _, value = word.partition("=")
        if option.startswith("-") and (short := without_home(value)) != value and short.startswith("~"):
            shared += [option, short]
        else:
            short = without_home(word)
            shared.append(short if short.startswith("~") else word)
    return tuple(shared)


def command_again(words: Sequence[str]) -> str | None:
    """A command of results.json as a line to paste; None unless it calls ``benchmark`` or a study of this repository.

    The text of the file is never printed verbatim: each word is quoted for this machine's shell.
    """
    ours = tuple(words[:2]) == ("nnUNetv2_lightm", "benchmark") or _STUDY.match(" ".join(words))
    return " ".join(map(_quoted, shared_words(words))) if ours else None


def _quoted(word: str) -> str:
    begin, rest = word[:2], word[2:]
    if begin in ("~", "~/") or (begin == "~\\" and os.name == "nt"):  # in quotes a shell leaves ~ alone
        return begin + escape_shell(rest) if rest else begin
    return escape_shell(word)

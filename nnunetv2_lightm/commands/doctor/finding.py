"""The result of a check: one line, and what to do about it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from enum import Enum

from ...escaping import escape_shell

_PLAIN = re.compile(r"(\$HOME(?=[/\\]))?[\w@%+=:,./\\ -]*", re.ASCII)


class Status(str, Enum):
    """Severity. Only ``FAIL`` keeps training from starting."""

    OK = "OK"
    NOTE = "NOTE"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's output.

    ``remedy`` is what the user can paste or do, one step per line; empty if there is nothing to do.
    """

    status: Status
    subject: str
    message: str
    remedy: tuple[str, ...] = ()


def ok(subject: str, message: str) -> Finding:
    return Finding(Status.OK, subject, message)


def note(subject: str, message: str, *remedy: str) -> Finding:
    return Finding(Status.NOTE, subject, message, remedy)


def fail(subject: str, message: str, *remedy: str) -> Finding:
    return Finding(Status.FAIL, subject, message, remedy)


def set_variable(name: str, value: object) -> str:
    """The shell line that sets an environment variable, for this system's usual shell."""
    # Double quotes leave $HOME to the shell; anything else with a meaning there is quoted.
    quoted = f'"{value}"' if _PLAIN.fullmatch(str(value)) else escape_shell(value)
    return f"$env:{name} = {quoted}" if os.name == "nt" else f"export {name}={quoted}"


def unset_variable(name: str) -> str:
    """The shell line that removes an environment variable."""
    return f"Remove-Item Env:{name}" if os.name == "nt" else f"unset {name}"

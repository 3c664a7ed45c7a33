"""What a check says: one line, and what to do about it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum


class Status(str, Enum):
    """How bad it is. ``FAIL`` alone keeps a training from starting."""

    OK = "OK"
    NOTE = "NOTE"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's screen.

    ``remedy`` holds what the user can paste or do, one step a line; empty where there is nothing to do.
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
    """The shell line that sets an environment variable, for the shell that is usual on this system."""
    return f'$env:{name} = "{value}"' if os.name == "nt" else f'export {name}="{value}"'


def unset_variable(name: str) -> str:
    """The shell line that removes an environment variable."""
    return f"Remove-Item Env:{name}" if os.name == "nt" else f"unset {name}"

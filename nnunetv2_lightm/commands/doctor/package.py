"""Which version of this package is installed, where it came from, and which compiled library it uses."""

from __future__ import annotations

from ... import installation
from .finding import Finding, note, ok

SUBJECT = installation.DISTRIBUTION


def check_package(outcomes: dict[str, object]) -> list[Finding]:
    """One line; a missing compiled library is a note, with the reason."""
    library = outcomes["library"]
    if "error" in library:
        return [note(SUBJECT, f"{installation.describe()}; its compiled library cannot be asked: {library['error']}")]
    if "reason" in library:
        return [note(SUBJECT, f"{installation.describe()}; its compiled library {library['reason']}")]
    sets = ", ".join(library["instruction sets"])
    compiled = f"compiled library {library['path']} (by {library['compiler']}; {sets})"
    return [ok(SUBJECT, f"{installation.describe()}; {compiled}")]

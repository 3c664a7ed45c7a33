"""Which backends of the selective scan are usable, and why the others are not."""

from __future__ import annotations

import os

from .finding import Finding, fail, note, ok, unset_variable

SUBJECT = "scan backends"
# ops.backends.ENVIRONMENT_VARIABLE, which cannot be imported where torch is broken; a test compares the two.
FORCING_VARIABLE = "NNUNETV2_LIGHTM_BACKEND"


def check_backends(outcomes: dict[str, object]) -> list[Finding]:
    """One line for each device that torch sees: the backend in use, then those that come first but cannot run."""
    table = outcomes["backends"]
    if isinstance(table, dict):
        return [fail(SUBJECT, f"cannot be listed: {table['error']}")]
    forced = os.environ.get(FORCING_VARIABLE)
    runs_somewhere = forced == "reference" or any(row["selected"] for row in table)
    findings = []
    for device in dict.fromkeys(row["device"] for row in table):
        rows = [row for row in table if row["device"] == device]
        if forced and not any(row["selected"] for row in rows):
            findings.append(_forced(forced, device, rows, runs_somewhere))
        else:
            findings.append(_device(device, rows))
    return findings


def _device(device: str, rows: list[dict[str, object]]) -> Finding:
    usable = [row["name"] + (" (taken)" if row["selected"] else "") for row in rows if row["usable"]]
    considered = [row for row in rows if row["considered"]]
    unusable = [f"{row['name']}: {row['reason']}" for row in considered if not row["usable"]]
    message = "; not ".join([f"{device}: {', '.join(usable) or 'none'}", *unusable])
    if not usable:
        return fail(SUBJECT, message)
    if unusable and considered[-1]["selected"]:
        return note(SUBJECT, f"{message}. Everything works, but slower")
    return ok(SUBJECT, message)


def _forced(name: str, device: str, rows: list[dict[str, object]], runs_somewhere: bool) -> Finding:
    """The finding for a device on which the backend that the environment asks for does not run."""
    if name == "reference":
        return note(SUBJECT, f"{device}: {FORCING_VARIABLE} asks for {name}, a loop to test against, which is slow")
    reason = next(row["reason"] for row in rows if row["name"] == name)
    level = note if runs_somewhere else fail
    message = f"{device}: {FORCING_VARIABLE} asks for {name}, which does not run there: {reason}"
    return level(SUBJECT, message, unset_variable(FORCING_VARIABLE))

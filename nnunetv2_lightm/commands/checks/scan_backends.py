"""Which backends of the selective scan are usable, and why the others are not."""

from __future__ import annotations

from .finding import Finding, fail, note, ok

SUBJECT = "scan backends"


def check_backends(found: dict[str, object]) -> list[Finding]:
    """One line for each device that torch sees: the backend taken, then those that cannot be."""
    table = found["backends"]
    if isinstance(table, dict):
        return [fail(SUBJECT, f"cannot be listed: {table['error']}")]
    findings = []
    for device in dict.fromkeys(backend["device"] for backend in table):
        rows = [backend for backend in table if backend["device"] == device]
        usable = [row["name"] + (" (taken)" if row["selected"] else "") for row in rows if row["usable"]]
        unusable = [f"{row['name']}: {row['reason']}" for row in rows if not row["usable"]]
        message = "; not ".join([f"{device}: {', '.join(usable) or 'none'}", *unusable])
        if not usable:
            findings.append(fail(SUBJECT, message))
        elif device == "cpu" and unusable:
            # Other devices have backends that cannot run there; on the CPU all of them should.
            findings.append(note(SUBJECT, f"{message}. Everything works, but slower"))
        else:
            findings.append(ok(SUBJECT, message))
    return findings

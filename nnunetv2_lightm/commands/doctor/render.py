"""Findings as text for people and as JSON for programs."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from dataclasses import asdict, replace

from ...escaping import escape_terminal, to_json
from .finding import Finding, Status

COLOURS = {Status.OK: "\033[32m", Status.NOTE: "\033[33m", Status.FAIL: "\033[31m"}
RESET = "\033[0m"


def as_json(findings: list[Finding]) -> str:
    """The verdict and all findings."""
    would_start = all(finding.status is not Status.FAIL for finding in findings)
    return to_json({"training_would_start": would_start, "findings": [asdict(f) for f in findings]}).rstrip("\n")


def as_text(findings: list[Finding]) -> str:
    """One line per finding, then the verdict and the fixes."""
    # Names of data sets, folders and errors of other plug-ins come from anywhere.
    findings = [
        replace(
            finding,
            subject=escape_terminal(finding.subject),
            message=escape_terminal(finding.message),
            remedy=tuple(map(escape_terminal, finding.remedy)),
        )
        for finding in findings
    ]
    width = max(len(finding.subject) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(_line(finding, width))
        if finding.status is Status.NOTE:
            lines += [f"{'':{width + 8}}{step}" for step in finding.remedy]
    failures = [finding for finding in findings if finding.status is Status.FAIL]
    if not failures:
        notes = any(finding.status is Status.NOTE for finding in findings)
        return "\n".join([*lines, "", "Training can start" + ("; read the notes." if notes else ".")])
    lines += ["", "Training cannot start. To fix it:"]
    for failure in failures:
        steps = failure.remedy or (failure.message,)
        lines += [f"  {failure.subject}", *(f"      {step}" for step in steps)]
    return "\n".join(lines)


def _line(finding: Finding, width: int) -> str:
    columns = max(60, shutil.get_terminal_size((120, 24)).columns)
    text = textwrap.fill(
        f"{finding.status.value:<6}{finding.subject:<{width + 2}}{finding.message}",
        width=columns,
        subsequent_indent=" " * (width + 8),
        break_long_words=False,
        break_on_hyphens=False,
    )
    if not _coloured():
        return text
    mark = finding.status.value
    return COLOURS[finding.status] + mark + RESET + text[len(mark) :]


def _coloured() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

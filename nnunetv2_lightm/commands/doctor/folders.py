"""The three folders nnU-Net works in."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from ...nnunet import FOLDERS
from .finding import Finding, fail, note, ok, set_variable

LOW_DISK_GIB = 10


def check_folders() -> list[Finding]:
    """Check each folder: set, existing, writable, with free space."""
    return [_check(name, purpose) for name, purpose in FOLDERS.items()]


def _check(variable: str, purpose: str) -> Finding:
    value = os.environ.get(variable)
    if not value:
        state = "not set" if value is None else "set, but empty"
        return fail(variable, f"{state}; nnU-Net keeps {purpose} there", *_suggestion(variable))
    if value.startswith("~"):
        message = f"{value}: nnU-Net does not expand the ~"
        return fail(variable, message, set_variable(variable, Path(value).expanduser()))
    folder = Path(value)
    if folder.exists() and not folder.is_dir():
        return fail(variable, f"{value} is a file, not a folder", *_suggestion(variable))
    if not folder.exists():
        parent = next(parent for parent in folder.absolute().parents if parent.exists())
        refusal = _refusal_to_write(parent)
        if refusal is not None:
            return fail(variable, f"{value} does not exist and cannot be made: {refusal}", *_suggestion(variable))
        return note(variable, f"{value} does not exist yet; it is created when it is first written to")
    refusal = _refusal_to_write(folder)
    if refusal is not None:
        # Existing data can be trained on; only the results have to be written.
        if variable == "nnUNet_results":
            return fail(variable, f"{value} cannot be written to: {refusal}", *_suggestion(variable))
        return note(variable, f"{value} can be read but not written to ({refusal}): nothing new can be put there")
    free_gib = shutil.disk_usage(folder).free / 2**30
    notes = [] if folder.is_absolute() else ["is relative: it names another folder whenever you start elsewhere"]
    if free_gib < LOW_DISK_GIB:
        notes.append(f"has only {free_gib:.1f} GiB free")
    if notes:
        return note(variable, f"{value} {'; it '.join(notes)}")
    return ok(variable, f"{value}, {free_gib:.0f} GiB free")


def _refusal_to_write(folder: Path) -> str | None:
    """Why a folder is not writable; None if it is. Tested by writing: permissions do not tell the whole truth."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
    except OSError as error:
        return error.strerror or str(error)
    return None


def _suggestion(variable: str) -> tuple[str, ...]:
    name = variable.removeprefix("nnUNet_")  # as in the README
    if os.name == "nt":
        return (set_variable(variable, rf"$HOME\nnUNet\{name}"),)
    return (f'{set_variable(variable, f"$HOME/nnUNet/{name}")}; mkdir -p "${variable}"',)

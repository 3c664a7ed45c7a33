"""Checks that nnU-Net finds our trainer by name, and that no other trainer has the same name."""

from __future__ import annotations

import os
import shlex

from ...autoload import boot, shim_directory
from ...autoload.boot import switched_off
from ...extras import install_command
from ...installation import reinstall_command
from .finding import Finding, fail, note, ok, set_variable, unset_variable
from .fresh_process import TRAINER

SUBJECT = "trainers"
PACKAGE = "nnunetv2_lightm"


def check_discovery(outcomes: dict[str, object]) -> list[Finding]:
    """Findings about nnU-Net's own look-up of our trainer in a fresh process, and the directories it searched."""
    lookup, directories = outcomes["lookup"], outcomes["directories"]
    if not isinstance(directories, list):
        directories = []
    findings = [_verdict(lookup, outcomes["own tree"], directories)]
    ours_seen = False
    for directory in directories:
        ours_seen = ours_seen or _is_ours(directory["finds"])
        findings += _about(directory, ours_seen)
    return findings


def _verdict(lookup: dict[str, object], own_tree: object, directories: list[dict[str, object]]) -> Finding:
    if "error" not in lookup:
        if _is_ours(lookup["module"]):
            way = "by the autoload" if lookup["by autoload"] else f"by {boot.EXT_TRAINER_VARIABLE} as it was exported"
            return ok(SUBJECT, f"{TRAINER} is found, {way}: {shim_directory()}")
        if isinstance(own_tree, str):
            return fail(
                SUBJECT,
                f"nnunetv2's own tree holds another {TRAINER} ({own_tree}), which wins over ours",
                "python -m pip uninstall nnunetv2   # a fork may have overwritten it; then delete what is left of it",
                install_command("nnunetv2"),
            )
        rival = next((entry["path"] for entry in directories if isinstance(entry["finds"], str)), lookup["module"])
        return fail(
            SUBJECT,
            f"another {TRAINER} wins: {rival} comes before ours in {boot.EXT_TRAINER_VARIABLE}",
            f"take {rival} out of {boot.EXT_TRAINER_VARIABLE}, or rename its trainer",
        )
    if isinstance(own_tree, dict):
        return fail(SUBJECT, f"nnU-Net cannot search for trainers, not even for its own: {lookup['error']}")
    broken = next((entry for entry in directories if _error(entry)), None)
    if broken is not None and broken["path"] == shim_directory():
        return fail(SUBJECT, _error(broken), reinstall_command())
    if broken is not None:
        return fail(
            SUBJECT,
            f"{broken['path']} in {boot.EXT_TRAINER_VARIABLE} breaks the search, also for all directories after it: "
            f"{_error(broken)}",
            f"fix that directory, or remove it from {boot.EXT_TRAINER_VARIABLE}",
        )
    if os.pathsep in shim_directory():
        return fail(
            SUBJECT,
            f"{TRAINER} is not found: nnU-Net splits {boot.EXT_TRAINER_VARIABLE} at each {os.pathsep!r}, and the path "
            f"of our directory contains one: {shim_directory()}",
            "install into an environment whose path contains none",
            f"ln -s {shlex.quote(shim_directory())} ~/lightm_trainers   # or this, and",
            f"export {boot.EXT_TRAINER_VARIABLE}=~/lightm_trainers",
        )
    if switched_off():
        switch = f"{boot.SWITCH_VARIABLE}={os.environ[boot.SWITCH_VARIABLE]}"
        return fail(
            SUBJECT,
            f"{TRAINER} is not found: {switch} switches the autoload off",
            unset_variable(boot.SWITCH_VARIABLE),
        )
    return fail(
        SUBJECT,
        f"{TRAINER} is not found: the start-up file nnunetv2_lightm.pth is missing or not read in this Python",
        reinstall_command(),
        set_variable(boot.EXT_TRAINER_VARIABLE, shim_directory()) + "   # or this, where .pth files are not read",
    )


def _about(directory: dict[str, object], ours_seen: bool) -> list[Finding]:
    path, finds = directory["path"], directory["finds"]
    if not directory["exists"]:
        return [note(SUBJECT, f"{path} in {boot.EXT_TRAINER_VARIABLE} does not exist; nnU-Net skips it")]
    if _error(directory) and ours_seen:
        message = f"{path}, after ours in {boot.EXT_TRAINER_VARIABLE}, breaks the search for its own trainers"
        return [note(SUBJECT, f"{message}: {_error(directory)}")]
    if isinstance(finds, str) and not _is_ours(finds) and ours_seen:
        return [note(SUBJECT, f"{path} holds another {TRAINER}; ours comes first")]
    return []


def _error(directory: dict[str, object]) -> str | None:
    finds = directory["finds"]
    return finds["error"] if isinstance(finds, dict) else None


def _is_ours(module: object) -> bool:
    return isinstance(module, str) and module.split(".")[0] == PACKAGE

"""The image files of a raw data set: what would spoil a training without stopping it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...files.text import some_of
from .finding import Finding, fail, note, ok

if TYPE_CHECKING:
    from ...images.dataset import CheckedDataset

SHOWN = 3


def check_images(folder: Path, dataset_json: dict[str, Any]) -> list[Finding]:
    """Read every image and label to its end.

    Args:
        folder: Folder of the data set, in nnUNet_raw.
        dataset_json: Its content, without faults.
    """
    subject = f"files of {folder.name}"
    try:
        from ...images.dataset import check_dataset_files
    except ImportError as error:
        return [note(subject, f"not checked, because a library is missing or broken: {error}")]
    checked = check_dataset_files(folder, dataset_json)
    findings = []
    if checked.faults:
        message = f"{len(checked.faults)} faults: {some_of(checked.faults, SHOWN, separator='; ')}"
        remedy = "fix, replace or remove these files, and preprocess again"
        findings.append(fail(subject, message, remedy))
    findings += [note(subject, text) for text in checked.notes]
    findings += _labels(subject, checked)
    return findings or [
        ok(subject, f"images and labels of {checked.num_cases} cases are whole, finite and on one grid")
    ]


def _labels(subject: str, checked: CheckedDataset) -> list[Finding]:
    """Labels that no case has; if no label occurs at all, nnU-Net's planner fails with an IndexError."""
    if not checked.never or not checked.num_labels:
        return []
    names = ", ".join(checked.never)
    if len(checked.never) == checked.num_foreground:
        message = (
            f"no label file holds any of {names}: all are background, and nnU-Net's planner fails with an IndexError"
        )
        return [fail(subject, message, "were the labels exported empty, or with other values? Export them again")]
    return [note(subject, f"no label file holds {names}: the network cannot learn what no case shows")]

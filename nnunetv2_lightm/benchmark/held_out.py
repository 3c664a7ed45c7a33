"""The test split of a raw data set, imagesTs and labelsTs: whether there is one, and whether the two fit together."""

from __future__ import annotations

from pathlib import Path

from ..files import INCIDENTAL, some_of
from ..images.cases import find_cases


def has_test_split(raw: Path) -> bool:
    """Whether both folders of a raw data set hold files, besides those that operating systems leave around."""
    folders = (raw / "imagesTs", raw / "labelsTs")
    return all(folder.is_dir() and any(file.name not in INCIDENTAL for file in folder.iterdir()) for folder in folders)


def fault_of_test_split(raw: Path, file_ending: str) -> str | None:
    """Why the test split cannot be predicted and scored as a whole; None if it can.

    Args:
        raw: Folder of the raw data set; it has a test split.
        file_ending: dataset.json's `file_ending`.
    """
    images, labels = raw / "imagesTs", raw / "labelsTs"
    cases, faults = find_cases(images, file_ending)
    if faults:
        return f"{len(faults)} files of the test split: {some_of(faults, separator='; ')}"
    labelled = {
        path.name.removesuffix(file_ending)
        for path in labels.iterdir()
        if path.name.endswith(file_ending) and not path.name.startswith(".")
    }
    parts = []
    if unlabelled := [cases[case][0] for case in sorted(cases.keys() - labelled)]:
        parts.append(f"there is no label for {some_of(unlabelled)}")
    if surplus := [labels / (case + file_ending) for case in sorted(labelled - cases.keys())]:
        parts.append(f"there is no image for {some_of(surplus)}")
    if not cases and not labelled:
        parts.append(f"neither {images} nor {labels} holds a file ending in {file_ending}, as dataset.json says")
    if not parts:
        return None
    return (
        f"the test split cannot be scored: {'; '.join(parts)}. Each image CASE_0000{file_ending} in imagesTs needs its "
        f"label CASE{file_ending} in labelsTs: add what is missing, or move the others away; without labelsTs the "
        "validation cases are scored"
    )

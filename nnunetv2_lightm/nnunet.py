"""nnU-Net's three folders and the data sets in them, found by the rules of nnU-Net's own commands.

Standard library only: the doctor uses it even where torch or nnunetv2 is broken.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

# The folders by the variables that name them, in the order of their use: a training reads the first two and writes the
# third.
FOLDERS = {
    "nnUNet_raw": "converted data sets",
    "nnUNet_preprocessed": "preprocessed data and plans",
    "nnUNet_results": "trained models",
}
_NAME = re.compile(r"Dataset(\d{3,})_.+")


class NotFound(LookupError):
    """A folder of nnU-Net or a data set in it cannot be found; the message says what is needed."""


def folder_from_environment(variable: str) -> Path:
    """One of nnU-Net's three folders, from its environment variable.

    Raises:
        NotFound: if the variable is not set.
    """
    value = os.environ.get(variable)
    if not value:
        raise NotFound(f"{variable} is not set: export {variable}=FOLDER; `nnUNetv2_lightm doctor` checks all three")
    return Path(value).absolute()


def dataset_id(name: str) -> int:
    """The id in a data set's name: 801 for "Dataset801_LiTS".

    Raises:
        ValueError: if the name is not one of nnU-Net's.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is not a data set's name; expected e.g. Dataset801_LiTS")
    return int(match[1])


def datasets_named(name_or_id: str, folders: Iterable[Path]) -> list[str]:
    """Names of the data sets in any of the folders that have this name or id, sorted.

    nnU-Net refuses an id with several names (nnunetv2/utilities/dataset_name_id_conversion.py).
    """
    names = {path.name for parent in folders for path in parent.glob("Dataset*") if path.is_dir()}
    if name_or_id.isdecimal():
        return sorted(name for name in names if _NAME.fullmatch(name) and dataset_id(name) == int(name_or_id))
    return sorted(names & {name_or_id})


def find_dataset(name_or_id: str, parent: Path) -> str:
    """Name of the data set in one of nnU-Net's folders.

    Raises:
        NotFound: if there is none, or more than one with that id.
    """
    found = datasets_named(name_or_id, [parent])
    if len(found) > 1:
        raise NotFound(f"{parent} has {len(found)} data sets with the id {name_or_id}: {', '.join(found)}; rename one")
    if not found:
        names = sorted(path.name for path in parent.glob("Dataset*") if path.is_dir())
        there_are = f"there are: {', '.join(names)}" if names else "there is none at all"
        raise NotFound(f"no data set {name_or_id!r} in {parent}; {there_are}")
    return found[0]

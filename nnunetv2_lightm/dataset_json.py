"""nnU-Net's dataset.json: what its entries may be. Standard library only, so everything may use it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


def channel_names_of(dataset_json: Mapping[str, Any]) -> Mapping[str, str]:
    """Number to name; older dataset.json files call it `modality`, which nnU-Net still accepts."""
    return dataset_json.get("channel_names", dataset_json.get("modality", {}))


def label_values(value: Any) -> tuple[int, ...] | None:
    """The values behind a name in `labels`: one, or those of a region; None if it is neither a whole number from 0 nor
    a list of them."""
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return values if values and all(type(one) is int and 0 <= one < 2**31 for one in values) else None


def is_file_ending(ending: Any) -> bool:
    """Whether it can be `file_ending`, which becomes a part of file names: ".nii.gz"."""
    return isinstance(ending, str) and re.fullmatch(r"\.[^/\\\0]{1,30}", ending) is not None and ending != ".."

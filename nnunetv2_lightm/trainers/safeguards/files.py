"""The files behind a training and a prediction: damaged ones, NaN that readers hide, and missing channels.

nnU-Net gives the network whatever its readers make of a folder. SimpleITK reads 0 where a NIfTI holds NaN and fills up
a truncated one, and without its second channel a case is given to the network with one.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.paths import nnUNet_raw

from ...escaping import escape_name
from ...images.cases import check_cases, find_cases, listed
from ...images.check import check_label
from ...images.dataset import check_dataset_files, grouped
from ...images.faults import ImageFault


class ImagesRefusedError(ValueError):
    """Image files that must not be trained on, or segmented; the message names each."""


def check_raw_files(
    dataset: str, dataset_json: Mapping[str, Any], cases: Iterable[str], log: Callable[[str], None]
) -> None:
    """Check the raw images and labels of a training, where nnUNet_raw has them.

    Files that hold integers are only compared in length, so that it takes seconds.

    Args:
        dataset: Name in nnUNet_raw.
        dataset_json: Of the training.
        cases: That are trained on or validated with.
        log: For what is odd.
    Raises:
        ImagesRefusedError: naming the files.
    """
    raw = nnUNet_raw.get()
    if not raw or not Path(raw, dataset, "imagesTr").is_dir():
        log(f"{dataset} is not in nnUNet_raw: faults that its readers hid, such as NaN read as 0, go unseen")
        return
    checked = check_dataset_files(Path(raw, dataset), dataset_json, cases=set(cases), thorough=False)
    for text in checked.notes:
        log(f"note: {text}")
    if checked.faults:
        raise ImagesRefusedError(
            f"{len(checked.faults)} faults in the raw files of this fold:{listed(checked.faults)}\nFix them and "
            "preprocess again, or take the cases out of the split"
        )


def watch_predictions(is_watched: Callable[[str], bool]) -> None:
    """Make nnU-Net's predictor check its files before it preprocesses the first one.

    nnU-Net has no place for this: between its command line and its readers, in processes of their own, nothing of a
    trainer is called. So the method that pairs input and output files is wrapped, once.

    Args:
        is_watched: Whether the predictions of a trainer are checked, by its name.
    """
    original = nnUNetPredictor._manage_input_and_output_lists
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def checked(self: nnUNetPredictor, source: str | list[list[str]], *args: Any, **kwargs: Any) -> tuple:
        if not is_watched(self.trainer_name):
            return original(self, source, *args, **kwargs)
        if isinstance(source, str):
            _check_folder(Path(source), self.dataset_json)
        inputs, outputs, previous = original(self, source, *args, **kwargs)
        _check_inputs(inputs, previous, self.dataset_json)
        return inputs, outputs, previous

    nnUNetPredictor._manage_input_and_output_lists = checked


def _check_folder(folder: Path, dataset_json: Mapping[str, Any]) -> None:
    """What nnU-Net would take for a case, or for a channel in another place."""
    if not folder.is_dir():
        raise ImagesRefusedError(f"{escape_name(folder)} is no folder; -i takes the folder of the images")
    cases, faults = find_cases(folder, dataset_json["file_ending"])
    if not cases and not faults:
        raise ImagesRefusedError(
            f"{escape_name(folder)} holds no image CASE_0000{dataset_json['file_ending']}, the ending of the training"
        )
    ours, theirs = list(_channel_names(dataset_json).values()), _names_beside(folder)
    if theirs != ours and sorted(theirs) == sorted(ours):
        faults.append(
            f"the channels are {', '.join(theirs)} by the dataset.json of {escape_name(folder)}, and {', '.join(ours)} "
            "in the training: rename the files, so that _0000 is the first of these"
        )
    _refuse(faults)


def _check_inputs(
    inputs: Sequence[Sequence[str]], previous: Sequence[str | None] | None, dataset_json: Mapping[str, Any]
) -> None:
    ending = dataset_json["file_ending"]
    cases = {}
    for number, files in enumerate(inputs):
        name = Path(files[0]).name.removesuffix(ending)
        name = name[:-5] if name[-5:-4] == "_" else name
        cases[name if name not in cases else f"{name} ({number})"] = [Path(file) for file in files]
    checked = check_cases(cases, _channel_names(dataset_json), ending)
    for text in grouped((facts.path, note) for facts in checked.all_facts() for note in facts.notes):
        print(f"note: {text}")
    faults = checked.faults
    for file in filter(None, previous or ()):
        try:
            check_label(Path(file))
        except ImageFault as fault:
            faults.append(str(fault))
    _refuse(faults)


def _refuse(faults: Sequence[str]) -> None:
    if faults:
        raise ImagesRefusedError(
            f"{len(faults)} faults in the images to segment; nothing was segmented:{listed(faults)}\nFix them, or take "
            "them out of the folder"
        )


def _channel_names(dataset_json: Mapping[str, Any]) -> Mapping[str, str]:
    return dataset_json.get("channel_names", dataset_json.get("modality", {}))


def _names_beside(folder: Path) -> list[str]:
    """The channels by the dataset.json in the folder or next to it, as in a raw data set; none if there is none."""
    for path in (folder / "dataset.json", folder.absolute().parent / "dataset.json"):
        try:
            return [str(name) for name in _channel_names(json.loads(path.read_text(encoding="utf-8"))).values()]
        except (OSError, ValueError, AttributeError):
            continue  # it is none of ours, and not needed
    return []

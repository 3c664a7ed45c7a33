"""Checks of the image files behind a training or a prediction: damage, NaN that readers hide, missing channels.

nnU-Net passes on whatever its readers make of a folder. SimpleITK reads 0 where a NIfTI holds NaN and pads a truncated
file; a case whose second channel is missing reaches the network with one channel.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.paths import nnUNet_raw

from ...dataset_json import channel_names_of
from ...escaping import escape_name
from ...images.cases import check_cases, find_cases, listed
from ...images.check import check_label
from ...images.dataset import LISTED, check_dataset_files, grouped
from ...images.faults import ImageFault


class ImagesRefusedError(ValueError):
    """Image files that must not be used for training or prediction; the message names each."""


def check_raw_files(
    dataset: str, dataset_json: Mapping[str, Any], cases: Iterable[str], log: Callable[[str], None]
) -> None:
    """Check the raw images and labels of a training, if they are in nnUNet_raw.

    Files that hold integers are only checked for their length (PNG, BMP and TIFF are read whole): seconds for
    thousands of them. Files of floating-point numbers are read to their end.

    Args:
        dataset: Name in nnUNet_raw.
        dataset_json: The training's dataset.json.
        cases: Cases of the training and validation set.
        log: Receives notes about oddities.
    Raises:
        ImagesRefusedError: naming the files.
    """
    raw = nnUNet_raw.get()
    folder = Path(raw or "", dataset)
    if not raw or not folder.is_dir() or not (LISTED in dataset_json or (folder / "imagesTr").is_dir()):
        log(f"{dataset} is not in nnUNet_raw: faults that its readers hid, such as NaN read as 0, go unnoticed")
        return
    checked = check_dataset_files(folder, dataset_json, cases=set(cases), thorough=False, as_nnunet=True)
    for text in checked.notes:
        log(f"note: {text}")
    if checked.faults:
        raise ImagesRefusedError(
            f"{len(checked.faults)} faults in the raw files of this fold:{listed(checked.faults)}\nFix them and "
            "preprocess again, or take the cases out of the split"
        )


def watch_predictions(is_watched: Callable[[str], bool]) -> None:
    """Make nnU-Net's predictor check all input files before it preprocesses the first one.

    nnU-Net has no hook for this: it calls nothing of a trainer between its command line and its readers, which run in
    processes of their own. So the method that pairs input and output files is wrapped, once.

    Args:
        is_watched: Whether to check the predictions of a trainer, by its name.
    """
    original = nnUNetPredictor._manage_input_and_output_lists
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def checked(self: nnUNetPredictor, source: str | list[list[str]], *args: Any, **kwargs: Any) -> tuple:
        # A predictor whose network was set by hand may have no trainer's name.
        if self.trainer_name is None or not is_watched(self.trainer_name):
            return original(self, source, *args, **kwargs)
        if isinstance(source, str):
            _check_folder(Path(source), self.dataset_json)
        inputs, outputs, previous = original(self, source, *args, **kwargs)
        reader = self.plans_manager.image_reader_writer_class.__name__
        _check_inputs(inputs, previous, self.dataset_json, reader, any_names=not isinstance(source, str))
        return inputs, outputs, previous

    nnUNetPredictor._manage_input_and_output_lists = checked


def _check_folder(folder: Path, dataset_json: Mapping[str, Any]) -> None:
    """Refuse files that nnU-Net would mistake for a case, or whose channels are in another order."""
    if not folder.is_dir():
        raise ImagesRefusedError(f"{escape_name(folder)} is not a folder; -i takes the folder with the images")
    cases, faults = find_cases(folder, dataset_json["file_ending"])
    if not cases and not faults:
        raise ImagesRefusedError(
            f"{escape_name(folder)} holds no image CASE_0000{dataset_json['file_ending']}, the ending of the training"
        )
    ours, theirs = list(channel_names_of(dataset_json).values()), _channel_names_nearby(folder)
    if theirs != ours and sorted(theirs) == sorted(ours):
        faults.append(
            f"the channels are {', '.join(theirs)} by the dataset.json of {escape_name(folder)}, and {', '.join(ours)} "
            "in the training: rename the files, so that _0000 is the first of these"
        )
    _refuse(faults)


def _check_inputs(
    inputs: Sequence[Sequence[str]],
    previous: Sequence[str | None] | None,
    dataset_json: Mapping[str, Any],
    reader: str,
    *,
    any_names: bool,
) -> None:
    ending = dataset_json["file_ending"]
    cases = {}
    for number, files in enumerate(inputs):
        name = Path(files[0]).name.removesuffix(ending)
        name = name[:-5] if name[-5:-4] == "_" else name
        cases[name if name not in cases else f"{name} ({number})"] = [Path(file) for file in files]
    checked = check_cases(cases, channel_names_of(dataset_json), ending, any_names=any_names, as_nnunet=True)
    for text in grouped((facts.path, note) for facts in checked.all_facts() for note in facts.notes):
        print(f"note: {text}")
    faults = checked.faults
    if reader.startswith("SimpleITK"):
        faults += [
            f"{escape_name(facts.path)}: {reader}, the model's reader, refuses {facts.refused_by_itk}"
            for facts in checked.all_facts()
            if facts.refused_by_itk
        ]
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


def _channel_names_nearby(folder: Path) -> list[str]:
    """Channel names from a dataset.json in the folder or next to it, as in a raw data set; empty without one."""
    for path in (folder / "dataset.json", folder.absolute().parent / "dataset.json"):
        try:
            return [str(name) for name in channel_names_of(json.loads(path.read_text(encoding="utf-8"))).values()]
        except (OSError, ValueError, AttributeError):
            continue  # not a dataset.json of nnU-Net's, and not needed
    return []

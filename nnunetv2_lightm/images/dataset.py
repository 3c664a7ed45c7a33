"""The files of a raw data set in nnU-Net's format: images, labels, and whether they belong together."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from ..dataset_json import channel_names_of, label_values
from ..escaping import escape_name
from .bounds import READERS
from .cases import CheckedCases, add_match, check_cases, find_cases
from .check import ImageFacts, check_label
from .faults import ImageFault
from .pairs import match
from .values import exactly

# Entry of a dataset.json that lists each case's files, which may lie anywhere.
LISTED = "dataset"


@dataclass
class CheckedDataset:
    """What was found in the files of a data set.

    Attributes:
        num_cases: Number of cases with an image.
        faults: Why files must not be used, in whole sentences.
        notes: What is odd.
        never: Names of foreground labels that no readable label file contains; empty unless all were read.
        num_foreground: Number of foreground labels.
        num_labels: Label files that were read to the end.
    """

    num_cases: int = 0
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    never: list[str] = field(default_factory=list)
    num_foreground: int = 0
    num_labels: int = 0


def check_dataset_files(
    folder: Path,
    dataset_json: Mapping[str, Any],
    *,
    cases: Collection[str] | None = None,
    thorough: bool = True,
    as_nnunet: bool = False,
) -> CheckedDataset:
    """Check the images and labels that a data set is trained on, and the images of imagesTs.

    Args:
        folder: Folder of the data set, in nnUNet_raw.
        dataset_json: Its content, without a fault (:func:`nnunetv2_lightm.nnunet_faults.faults_of_dataset_json`).
        cases: Only these, and not imagesTs; None: all.
        thorough: As in `check_image` and `check_label`.
        as_nnunet: Images and labels that differ only in where they lie are a note, as nnU-Net only warns of them.
    """
    ending = dataset_json["file_ending"]
    labels = {name: label_values(value) for name, value in dataset_json["labels"].items()}
    channel_names = channel_names_of(dataset_json)
    images, label_of, faults = _files(folder, dataset_json)
    if cases is not None:
        wanted = set(cases)
        images = {case: files for case, files in images.items() if case in wanted}
        faults = []
    options = {"thorough": thorough, "as_nnunet": as_nnunet}
    checked = check_cases(images, channel_names, ending, any_names=LISTED in dataset_json, **options)
    result = CheckedDataset(len(images), faults + checked.faults)
    known, seen = {0, *(value for values in labels.values() for value in values)}, set()
    labels_read: list[ImageFacts] = []
    if LISTED in dataset_json and cases is None:
        lost = [label_of[case] for case in images if not label_of[case].exists()]
        result.faults += [f"{escape_name(path)}, a label that dataset.json lists, does not exist" for path in lost]
    pairs = [(case, label_of[case]) for case in images if case in label_of and label_of[case].exists()]
    for case, label in zip((case for case, _ in pairs), _labels([path for _, path in pairs], thorough)):
        if isinstance(label, ImageFault):
            result.faults.append(str(label))
            continue
        result.num_labels += bool(label.values)
        seen.update(label.values)
        labels_read.append(label)
        if label.values and (unknown := [value for value in label.values if value not in known]):
            shown = ", ".join(map(exactly, unknown[:5]))
            result.faults.append(
                f"{escape_name(label.path)} holds the values {shown}, which dataset.json does not name"
            )
        if case in checked.facts:
            add_match(match(label, checked.facts[case][0]), label, result.faults, as_nnunet=as_nnunet)
    notes = [(facts.path, note) for facts in (*checked.all_facts(), *labels_read) for note in facts.notes]
    if cases is None and (folder / "imagesTs").is_dir():
        _add_test_images(result, notes, folder, channel_names, ending)
    foreground = {name: values for name, values in labels.items() if name != "ignore" and values != (0,)}
    result.num_foreground = len(foreground)
    if thorough:
        result.never = [name for name, values in foreground.items() if not seen & set(values)]
    result.notes = [*grouped(notes), *_orientations(checked)]
    return result


def grouped(notes: Iterable[tuple[Path, str]]) -> list[str]:
    """Notes of one kind as one sentence, which names the first file."""
    kinds: dict[str, list[str]] = {}
    for path, note in notes:
        kinds.setdefault(note.partition(":")[0], []).append(f"{escape_name(path)} {note}")
    return [texts[0] + (f" (and {len(texts) - 1} more like it)" if len(texts) > 1 else "") for texts in kinds.values()]


def _files(folder: Path, dataset_json: Mapping[str, Any]) -> tuple[dict[str, list[Path]], dict[str, Path], list[str]]:
    """Images and label of each case, by dataset.json's list or by the folders."""
    if LISTED not in dataset_json:
        images, faults = find_cases(folder / "imagesTr", dataset_json["file_ending"])
        return images, {case: folder / "labelsTr" / f"{case}{dataset_json['file_ending']}" for case in images}, faults
    listed = dataset_json[LISTED]

    def located(name: str) -> Path:
        return folder / os.path.expandvars(name)

    images = {case: [located(name) for name in entry["images"]] for case, entry in listed.items()}
    return images, {case: located(entry["label"]) for case, entry in listed.items()}, []


def _labels(paths: list[Path], thorough: bool) -> list[ImageFacts | ImageFault]:
    def read(path: Path) -> ImageFacts | ImageFault:
        try:
            return check_label(path, thorough=thorough)
        except ImageFault as fault:
            return fault
        except MemoryError:
            return ImageFault(path, "does not fit into memory")

    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(read, paths))


def _add_test_images(
    result: CheckedDataset, notes: list[tuple[Path, str]], folder: Path, channel_names: Mapping[str, str], ending: str
) -> None:
    images, faults = find_cases(folder / "imagesTs", ending)
    checked = check_cases(images, channel_names, ending)
    result.faults += faults + checked.faults
    notes += [(facts.path, note) for facts in checked.all_facts() for note in facts.notes]


def _orientations(checked: CheckedCases) -> list[str]:
    """A note if the images' axes point in different directions: nnU-Net's usual readers do not reorient."""
    codes: Counter[str] = Counter()
    for facts in checked.facts.values():
        grid = facts[0].grid
        if grid is not None and len(grid.size) == 3:
            codes["".join(nibabel.aff2axcodes(np.diag([-1, -1, 1, 1]) @ grid.voxel_to_mm))] += 1
    if len(codes) < 2:
        return []
    counts = ", ".join(f"{code} {count}" for code, count in codes.most_common())
    return [
        f"the images' axes point in different directions ({counts}), and nnU-Net does not reorient them: give all one "
        'orientation, or set "overwrite_image_reader_writer" to SimpleITKIOWithReorient in dataset.json'
    ]

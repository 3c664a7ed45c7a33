"""The data set to train on: a converted one, with the cases that are kept out in imagesTs and labelsTs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from nnunetv2_lightm.files import FolderTransaction, some_of, write_text


class WeightsError(Exception):
    """A model cannot be made; the message says what is in the way and what to do."""


def hold_out(converted: Path, target: Path, held_out: Iterable[str], pattern: str) -> tuple[int, int]:
    """Copy a data set in nnU-Net's raw format; the copy appears whole or not at all.

    Unlabelled images are left out. A copy that is there is checked.

    Args:
        converted: With all labelled cases in imagesTr and labelsTr.
        target: The copy.
        held_out: Cases for imagesTs and labelsTs.
        pattern: What names of cases are like.

    Returns: The numbers of training cases and of those kept out.

    Raises:
        WeightsError: if a case has another name, one to keep out is missing, none is left to train on, or the target
            is another data set.
    """
    dataset = json.loads((converted / "dataset.json").read_text(encoding="utf-8"))
    ending = dataset["file_ending"]
    cases = _cases(converted / "labelsTr", ending)
    test, train = set(held_out), cases - set(held_out)
    if others := sorted(case for case in cases if not re.fullmatch(pattern, case)):
        raise WeightsError(
            f"{converted}: has cases that must not be in this model: {some_of(others)}; expected names like {pattern}. "
            "Take them out of the source, and give a new FOLDER"
        )
    if missing := sorted(test - cases):
        raise WeightsError(
            f"{converted}: lacks {len(missing)} of the {len(test)} cases that are kept out to be scored: "
            f"{some_of(missing)}; complete the source, and give a new FOLDER"
        )
    if not train:
        raise WeightsError(f"{converted}: has no case to train on beyond the {len(test)} that are kept out")
    if target.exists():
        if (_cases(target / "labelsTr", ending), _cases(target / "labelsTs", ending)) != (train, test):
            raise WeightsError(f"{target}: has other cases than {converted} and the split say; give a new FOLDER")
        return len(train), len(test)
    with FolderTransaction([target], check=lambda: None, warn=print) as transaction:
        (folder,) = transaction.new
        for part, names in (("Tr", train), ("Ts", test)):
            for kind in ("images", "labels"):
                (folder / f"{kind}{part}").mkdir()
            for case in sorted(names):
                for image in converted.glob(f"imagesTr/{case}_[0-9][0-9][0-9][0-9]{ending}"):
                    shutil.copyfile(image, folder / f"images{part}" / image.name)
                shutil.copyfile(
                    converted / "labelsTr" / f"{case}{ending}", folder / f"labels{part}" / f"{case}{ending}"
                )
        write_text(folder / "dataset.json", json.dumps(dataset | {"numTraining": len(train)}, indent=4) + "\n")
        transaction.commit()
    return len(train), len(test)


def _cases(folder: Path, ending: str) -> set[str]:
    return {path.name.removesuffix(ending) for path in folder.glob(f"*{ending}")}

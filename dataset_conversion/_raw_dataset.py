"""nnU-Net's folders and the files of a raw data set in them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import Record, patiently, work_folder, write_text
from ..nnunet import FOLDERS
from ._errors import ConversionError
from ._files import require_utf8


@dataclass(frozen=True)
class NnUNetFolders:
    """The folders that nnU-Net's environment variables name; `results` may be unset."""

    raw: Path
    preprocessed: Path
    results: Path | None

    @classmethod
    def from_environment(cls) -> NnUNetFolders:
        """Read nnUNet_raw, nnUNet_preprocessed and nnUNet_results.

        Raises:
            ConversionError: if one of the first two is not set, or both are the same.
        """
        raw, preprocessed, results = (
            Path(os.environ[name]).absolute() if os.environ.get(name) else None for name in FOLDERS
        )
        if raw is None or preprocessed is None:
            missing = [name for name in ("nnUNet_raw", "nnUNet_preprocessed") if not os.environ.get(name)]
            exports = "; ".join(f"export {name}=/path/to/{name}" for name in missing)
            raise ConversionError(f"{' and '.join(missing)} must be set, as for nnU-Net itself: {exports}")
        for folder in (raw, preprocessed):
            require_utf8(folder)
        if os.path.realpath(raw) == os.path.realpath(preprocessed):
            raise ConversionError(f"nnUNet_raw and nnUNet_preprocessed are the same folder, {raw}; give two")
        return cls(raw, preprocessed, results)

    def all(self) -> list[Path]:
        """Those that are set."""
        return [folder for folder in (self.raw, self.preprocessed, self.results) if folder is not None]

    def targets(self, dataset: str) -> list[Path]:
        """The folders that a conversion makes."""
        return [self.raw / dataset, self.preprocessed / dataset]

    def begun_with_id_of(self, dataset: str) -> list[Path]:
        """The data sets in nnUNet_raw with this one's id that a conversion has begun and not finished."""
        working = work_folder(self.raw / dataset.partition("_")[0]).name
        prefix = working[: -len(dataset.partition("_")[0])]
        return [self.raw / path.name.removeprefix(prefix) for path in sorted(self.raw.glob(f"{working}_*"))]

    def check_free(self, dataset: str, *, overwrite: bool) -> None:
        """Refuse a data set whose id is taken by another name, and one that exists, unless it may be replaced.

        Raises:
            ConversionError: naming what is in the way.
            NotOursError: if the folder in nnUNet_raw holds files that no conversion made.
        """
        prefix = dataset.partition("_")[0]
        for folder in self.all():
            for other in sorted(folder.glob(f"{prefix}*")) if folder.is_dir() else ():
                if other.name != dataset and other.is_dir():
                    raise ConversionError(
                        f"the id of {dataset} is taken: {other}. nnU-Net needs one name per id; choose another --id"
                    )
        raw, _ = targets = self.targets(dataset)
        existing = [str(path) for path in targets if os.path.lexists(path)]
        if existing and not overwrite:
            raise ConversionError(
                f"{dataset} exists already ({' and '.join(existing)}). --overwrite replaces what a conversion made in "
                "nnUNet_raw, and sets aside what was preprocessed from it; or choose another --id"
            )
        if raw.is_symlink():
            raise ConversionError(f"{raw} is a symbolic link, which no conversion made; choose another --id")
        if raw.exists():
            (Record.read(raw) or Record(raw)).check_only_ours()


def dataset_folder_name(dataset_id: int, name: str) -> str:
    """`Dataset801_LiTS` from 801 and `LiTS`.

    Raises:
        ConversionError: if nnU-Net could not read the name back.
    """
    if not 1 <= dataset_id <= 999:
        raise ConversionError(f"data set id {dataset_id}: need 1 to 999")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) or re.match(r"Dataset\d{3}", name):
        raise ConversionError(
            f"data set name {name!r}: need letters, digits, - and _ only, and no leading DatasetXXX_, which is added "
            "automatically"
        )
    return f"Dataset{dataset_id:03d}_{name}"


@dataclass(frozen=True)
class RawDataset:
    """The files of a raw data set below `folder`."""

    folder: Path
    file_ending: str

    def make_folders(self) -> None:
        """Make the four folders, empty."""
        for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
            (self.folder / name).mkdir(parents=True)

    def image(self, case: str, part: str = "Tr") -> Path:
        """The image of a case; its one channel is number 0000."""
        return self.folder / f"images{part}" / f"{case}_0000{self.file_ending}"

    def label(self, case: str, part: str = "Tr") -> Path:
        """The label of a case."""
        return self.folder / f"labels{part}" / f"{case}{self.file_ending}"

    def move_to_test(self, case: str) -> None:
        """Move a labelled case from imagesTr and labelsTr to imagesTs and labelsTs."""
        patiently(self.image(case).rename, self.image(case, "Ts"))
        patiently(self.label(case).rename, self.label(case, "Ts"))

    def remove_empty_test_folders(self) -> None:
        """Leave no empty imagesTs or labelsTs."""
        for name in ("imagesTs", "labelsTs"):
            if not any(self._files(name)):
                (self.folder / name).rmdir()

    def write_dataset_json(self, name: str, channel_name: str, labels: dict[str, int], **about: str) -> None:
        """Write dataset.json; `about` is for readers, nnU-Net ignores it."""
        content = {
            "channel_names": {"0": channel_name},
            "labels": labels,
            "numTraining": sum(1 for _ in self._files("imagesTr")),
            "file_ending": self.file_ending,
            "name": name,
            **about,
        }
        write_json(content, self.folder / "dataset.json")

    def _files(self, name: str) -> Iterator[Path]:
        return (self.folder / name).iterdir()


def write_json(content: Any, file: Path) -> None:
    """Write JSON as nnU-Net does, indented.

    Raises:
        OSError: naming the file.
    """
    write_text(file, json.dumps(content, indent=4, ensure_ascii=False) + "\n")

"""nnU-Net's training log: the text files that a training and each continuation leave in a fold's folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_FILE_NAME = re.compile(r"training_log_(\d+)_(\d+)_(\d+)_(\d+)_(\d+)_(\d+)\.txt")
_LINE = re.compile(r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?): (?P<message>.*)")
# A separate number: not the 32 of np.float32(0.5).
_NUMBER = re.compile(r"(?<![\w.])-?(?:nan|inf|\d[\d.]*(?:e[-+]?\d+)?)")


@dataclass(frozen=True)
class EpochRecord:
    """What nnU-Net logs about one epoch.

    Attributes:
        epoch: Number, from 0.
        train_loss: Mean over the epoch.
        val_loss: Mean over the epoch.
        pseudo_dice: Dice of each foreground class on the validation patches; NaN for a class without voxels.
        seconds: Duration of the epoch.
    """

    epoch: int
    train_loss: float
    val_loss: float
    pseudo_dice: tuple[float, ...]
    seconds: float


def read_training_log(path: Path) -> list[EpochRecord]:
    """Read the log files of a training and merge them by epoch.

    A continuation starts from the last checkpoint; epochs it trains again replace the earlier ones. Unfinished epochs
    are left out.

    Args:
        path: Folder of a fold, or one of its `training_log_*.txt`.
    Returns: The finished epochs in order.
    Raises:
        FileNotFoundError: if there is no log.
        ValueError: if no epoch was finished.
    """
    files = [path] if path.is_file() else sorted(filter(_started, path.glob("training_log_*.txt")), key=_started)
    if not files:
        raise FileNotFoundError(f"{path}: no training_log_*.txt; give the folder of a fold, e.g. .../fold_0")
    epochs: dict[int, EpochRecord] = {}
    for file in files:
        records = _read_file(file)
        if records:
            epochs = {number: record for number, record in epochs.items() if number < records[0].epoch}
            epochs.update((record.epoch, record) for record in records)
    if not epochs:
        raise ValueError(f"{path}: the log has no finished epoch")
    return [epochs[number] for number in sorted(epochs)]


def _started(file: Path) -> tuple[int, ...] | None:
    match = _FILE_NAME.fullmatch(file.name)
    return tuple(map(int, match.groups())) if match else None


def _read_file(file: Path) -> list[EpochRecord]:
    records: list[EpochRecord] = []
    fields: dict = {}
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        match = _LINE.match(line)
        if not match:
            continue
        message = match["message"].strip()
        numbers = [float(number) for number in _NUMBER.findall(message)]
        if re.fullmatch(r"Epoch \d+", message):
            fields = {"epoch": int(numbers[0])}
        elif message.startswith(("train_loss", "val_loss")) and numbers:
            fields[message.split()[0]] = numbers[0]
        elif message.startswith("Pseudo dice"):
            fields["pseudo_dice"] = tuple(numbers)
        elif message.startswith("Epoch time:") and numbers and len(fields) == 4:
            records.append(EpochRecord(**fields, seconds=numbers[0]))
            fields = {}
    return records

"""The files of a case: which channels there are, whether any is missing, and whether they fit each other.

nnU-Net takes whatever lies in a folder, in the order of the names: with `_0000` and `_0002` alone, the network gets the
third channel as its second one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ..escaping import escape_name
from ..files.text import some_of
from .bounds import READERS
from .check import ImageFacts, check_image
from .faults import ImageFault
from .pairs import Match, match

NEXT_LINE = "\n  "


@dataclass
class CheckedCases:
    """What was found in the files of many cases.

    Attributes:
        faults: Why they must not be used, in whole sentences.
        facts: Facts about each case's files, in channel order, if none was refused.
    """

    faults: list[str] = field(default_factory=list)
    facts: dict[str, list[ImageFacts]] = field(default_factory=dict)

    def all_facts(self) -> Iterator[ImageFacts]:
        """The facts of all files that were not refused."""
        return (facts for of_case in self.facts.values() for facts in of_case)


def find_cases(folder: Path, ending: str) -> tuple[dict[str, list[Path]], list[str]]:
    """The cases of a folder with their files, as nnU-Net finds them.

    Returns: Case to files, sorted; and faults of files that nnU-Net would mistake for something else.
    """
    cases: dict[str, list[Path]] = {}
    faults = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not path.name.endswith(ending) or not path.is_file():
            continue
        match = re.fullmatch(r"(.+)_(\d{4})", path.name.removesuffix(ending), re.DOTALL)
        if path.name.startswith("."):
            faults.append(f"{escape_name(path)} is hidden, and nnU-Net takes it for an image: remove it")
        elif match is None:
            stem = escape_name(path.name.removesuffix(ending))
            faults.append(
                f"{escape_name(path)} has no channel number, and nnU-Net cuts off what it takes for one: for the first "
                f"channel, name it {stem}_0000{ending}"
            )
        else:
            cases.setdefault(match[1], []).append(path)
    return cases, faults


def check_cases(
    cases: Mapping[str, Sequence[Path]],
    channel_names: Mapping[str, str],
    ending: str,
    *,
    thorough: bool = True,
    any_names: bool = False,
    as_nnunet: bool = False,
) -> CheckedCases:
    """Check the channels of cases, then each file.

    Args:
        cases: Case to its files in the order of the channels.
        channel_names: As in dataset.json: number to name.
        ending: dataset.json's `file_ending`.
        thorough: As in `check_image`.
        any_names: The files were listed one by one, so their names need not have the numbers of the channels.
        as_nnunet: Channels that differ only in where they lie are a note, as nnU-Net only warns of them.
    """
    checked = CheckedCases()
    sound = []
    for case, files in cases.items():
        fault = _fault_of_numbers(case, files, channel_names, ending, any_names=any_names)
        if fault is None:
            sound.append(case)
        else:
            checked.faults.append(fault)
    with ThreadPoolExecutor(READERS) as pool:
        files = {path: len(cases[case]) == len(channel_names) for case in sound for path in cases[case]}
        results = dict(zip(files, pool.map(partial(_facts_or_fault, thorough=thorough), files, files.values())))
    for case in sound:
        of_case = [results[path] for path in cases[case]]
        refused = [str(result) for result in of_case if isinstance(result, ImageFault)]
        if refused:
            checked.faults += refused
            continue
        checked.facts[case] = of_case
        checked.faults += _faults_of_count(case, of_case, channel_names, ending)
        for one in of_case[1:]:
            add_match(match(one, of_case[0]), one, checked.faults, as_nnunet=as_nnunet)
    return checked


def listed(sentences: Sequence[str], at_most: int = 5) -> str:
    """The first few sentences, one per line, and how many more there are."""
    return f"{NEXT_LINE}{some_of(sentences, at_most, NEXT_LINE)}" if sentences else ""


def _facts_or_fault(path: Path, is_one_channel: bool, *, thorough: bool) -> ImageFacts | ImageFault:
    try:
        return check_image(path, thorough=thorough, is_one_channel=is_one_channel)
    except ImageFault as fault:
        return fault
    except MemoryError:
        return ImageFault(path, "does not fit into memory")


def add_match(matched: Match, first: ImageFacts, faults: list[str], *, as_nnunet: bool) -> None:
    """Add what keeps a file from its partner to the faults; or to its notes, where nnU-Net only warns."""
    if as_nnunet and matched.warning is not None:
        first.notes.append(matched.warning)
    elif matched.fault is not None:
        faults.append(matched.fault)


def _fault_of_numbers(
    case: str, files: Sequence[Path], channel_names: Mapping[str, str], ending: str, *, any_names: bool
) -> str | None:
    """Why the channel numbers in the file names are not 0, 1, ... without a gap and in order; None: they are.

    Listed files may have any numbers, but not all of 0, 1, ... in another order.
    """
    numbers = [_number(path, ending) for path in files]
    if None in numbers or numbers == list(range(len(files))):
        return None
    missing = sorted(set(range(max(numbers))) - set(numbers))
    if any_names and (missing or len(set(numbers)) < len(numbers)):
        return None
    if not missing:
        order = ", ".join(escape_name(path.name) for path in files)
        return f"case {escape_name(case)}: its channels are in the wrong order: {order}"
    names = _file_names(case, missing, channel_names, ending)
    return f"case {escape_name(case)} lacks {names} in {escape_name(files[0].parent)}: {_present(files)}"


def _faults_of_count(
    case: str, facts: Sequence[ImageFacts], channel_names: Mapping[str, str], ending: str
) -> list[str]:
    """Why the channels are not as many as those of dataset.json; empty: they are, or it is not known."""
    if any(one.channels is None for one in facts):
        return []
    files = [one.path for one in facts]
    channels, expected = sum(one.channels for one in facts), len(channel_names)
    if channels < expected:
        names = _file_names(case, range(channels, expected), channel_names, ending)
        return [f"case {escape_name(case)} lacks {names} in {escape_name(files[0].parent)}: {_present(files)}"]
    if channels > expected:
        wanted = ", ".join(map(str, channel_names.values()))
        return [
            f"case {escape_name(case)} has {channels} channels, {expected} are needed ({wanted}): {_present(files)}"
        ]
    return []


def _number(path: Path, ending: str) -> int | None:
    match = re.search(r"_(\d{4})$", path.name.removesuffix(ending))
    return int(match[1]) if match else None


def _file_names(case: str, numbers: Iterable[int], channel_names: Mapping[str, str], ending: str) -> str:
    """The files of channels, with what they show: `case_0001.nii.gz (T1)`."""
    texts = []
    for number in numbers:
        name = channel_names.get(str(number))
        texts.append(f"{escape_name(case)}_{number:04d}{ending}" + (f" ({name})" if name else ""))
    return ", ".join(texts)


def _present(files: Sequence[Path]) -> str:
    return f"there {'is' if len(files) == 1 else 'are'} {', '.join(escape_name(path.name) for path in files)}"

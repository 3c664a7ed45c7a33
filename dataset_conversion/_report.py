"""What became of every case: the conversion's report, as JSON and as text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from ..files import some_of

NEXT_LINE = "\n  "
# Repaired and odd cases that the printed summary shows.
_SHOWN_CASES = 20


@dataclass
class CaseReport:
    """What became of one case.

    Attributes:
        case: nnU-Net's case identifier.
        status: `converted`, `repaired` or `refused`.
        files: The source's files, relative to the source.
        reason: Why it was refused.
        repairs: What was repaired.
        notes: What is odd but was left as it is.
        part: `train`, `val`, `test`, or `unlabelled` for imagesTs without a label; None if refused.
    """

    case: str
    status: str
    files: list[str]
    reason: str | None = None
    repairs: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    part: str | None = None


@dataclass
class ConversionReport:
    """What became of a conversion.

    Attributes:
        dataset: Folder name, e.g. `Dataset801_LiTS`.
        source: The folder that was read.
        raw_folder: The dataset's folder in nnUNet_raw.
        options: How it was converted: split, seed, resize and so on.
        cases: One entry a case, sorted.
        ignored_files: Files of the source that belong to no case, relative to it.
        links_out: Links in the source to folders outside it.
        split: The cases of `train`, `val` and `test`; None if all are in imagesTr.
        dry_run: True if nothing was written.
        kept: Where `overwrite` moved old folders that held files which no conversion made.
    """

    dataset: str
    source: Path
    raw_folder: Path
    options: dict[str, Any]
    cases: list[CaseReport]
    ignored_files: list[str]
    links_out: list[str]
    split: dict[str, list[str]] | None
    dry_run: bool
    kept: list[Path] = field(default_factory=list)

    def with_status(self, status: str) -> list[CaseReport]:
        """The cases that were `converted`, `repaired` or `refused`."""
        return [case for case in self.cases if case.status == status]

    def in_part(self, part: str) -> list[CaseReport]:
        """The cases of `train`, `val`, `test` or `unlabelled`."""
        return [case for case in self.cases if case.part == part]

    def to_json(self) -> dict[str, Any]:
        """Content of conversion_report.json."""
        return {
            "dataset": self.dataset,
            "source": str(self.source),
            "converted_with": _version(),
            "options": self.options,
            "counts": {status: len(self.with_status(status)) for status in ("converted", "repaired", "refused")},
            "cases": [asdict(case) for case in self.cases],
            "ignored_files": self.ignored_files,
            "links_out": self.links_out,
            "split": self.split,
        }

    def summary(self) -> str:
        """The report as text; remarks on cases are complete only if there is no conversion_report.json."""
        shown = None if self.dry_run else _SHOWN_CASES
        counts = ", ".join(f"{len(self.with_status(s))} {s}" for s in ("converted", "repaired", "refused"))
        lines = [f"{self.dataset} from {self.source}", f"  {len(self.cases)} cases: {counts}", f"  {self._parts()}"]
        lines += _section("Refused", map(_refusal, self.with_status("refused")))
        lines += _section(
            "Repaired", (f"{c.case}: {'; '.join(c.repairs)}" for c in self.with_status("repaired")), shown
        )
        lines += _section("Noted", (f"{c.case}: {'; '.join(c.notes)}" for c in self.cases if c.notes), shown)
        lines += _section("Files not recognised and left out", self.ignored_files, shown)
        lines += _section("Links to folders outside the source", self.links_out, shown)
        lines += [f"The old folder, with files that no conversion made, is now {folder}" for folder in self.kept]
        return "\n".join(lines)

    def _parts(self) -> str:
        unlabelled = len(self.in_part("unlabelled"))
        more = f", {unlabelled} without a label in imagesTs" if unlabelled else ""
        if self.split is None:
            return f"no split: {len(self.in_part('train'))} in imagesTr{more}"
        sizes = ", ".join(f"{len(cases)} {part}" for part, cases in self.split.items())
        return f"split {self.options['split']}, seed {self.options['seed']}: {sizes}{more}"


def refusals(cases: Iterable[CaseReport]) -> str:
    """The refused cases with their reasons, for an error message."""
    return "\n".join(_section("Refused", (_refusal(case) for case in cases if case.status == "refused")))


def _refusal(case: CaseReport) -> str:
    return f"{case.case} ({', '.join(case.files)}): {case.reason}"


def _section(title: str, entries: Iterable[str], shown: int | None = None) -> list[str]:
    entries = list(entries)
    if not entries:
        return []
    shown = shown or len(entries)
    rest = ", in conversion_report.json" if len(entries) > shown else ""
    return [f"{title} ({len(entries)}):", f"  {some_of(entries, shown, separator=NEXT_LINE)}{rest}"]


def _version() -> str:
    try:
        return f"nnunetv2-lightm {metadata.version('nnunetv2-lightm')}"
    except metadata.PackageNotFoundError:
        return "nnunetv2-lightm, not installed"

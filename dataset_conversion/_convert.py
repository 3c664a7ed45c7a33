"""The course of every conversion: find the cases, check and write each, split, put everything in place."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..files import FolderTransaction, LockHeldError, NotOursError, Record, keep_apart, work_folder
from ..limits import free_memory_bytes
from ._errors import ConversionError
from ._files import FoundCases, SourceCase, refuse_alike, relative_names, require_utf8
from ._parallel import CaseOutcome, default_workers, process_cases
from ._raw_dataset import NnUNetFolders, RawDataset, dataset_folder_name, write_json
from ._report import CaseReport, ConversionReport, refusals
from ._spacings import read_spacings, with_spacings
from ._split import Ratio, part_sizes, split_cases


@dataclass(frozen=True)
class DatasetKind:
    """What distinguishes one data set from another.

    Attributes:
        dataset_id: nnU-Net's data set id, unless the options have another.
        dataset_name: Name without `DatasetXXX_`, likewise.
        file_ending: File ending of images and labels, by which nnU-Net chooses its reader.
        channel_name: Decides nnU-Net's normalisation: that of CT for `CT`, the z-score otherwise.
        labels: Names and values.
        layouts: The layouts that are recognised, for the message when none is found.
        about: Further entries of dataset.json.
        find_cases: Looks through a source.
        convert_case: Checks one case and, given targets, writes it: (case, image target, label target, shape, link).
            A module-level function, as worker processes import it.
    """

    dataset_id: int
    dataset_name: str
    file_ending: str
    channel_name: str
    labels: dict[str, int]
    layouts: str
    about: dict[str, str]
    find_cases: Callable[[Path], FoundCases]
    convert_case: Callable[[SourceCase, Path | None, Path | None, tuple[int, ...] | None, bool], CaseOutcome]


@dataclass(frozen=True, kw_only=True)
class ConversionOptions:
    """How to convert; `_cli.make_parser` has the same options.

    Attributes:
        dataset_id: nnU-Net's data set id; None: the kind's.
        dataset_name: Name without `DatasetXXX_`; None: the kind's.
        split: Train, validation, test, stratified by source; None puts all labelled cases into imagesTr.
        seed: Seed of the split.
        resize: Voxels, ([z,] y, x), e.g. the paper's inputs, (128, 128, 128) and (512, 512); the physical extent stays.
        spacings: CSV with the spacing of cases whose files have lost it, a line each: case, z, y, x in mm. A case is
            named by its identifier (`LiTS_028`), its image (`volume-28`) or its number (`28`). For volumes alone.
        workers: Processes; None: the number of cores, at most 8.
        link: Make symbolic links to files that need no change, instead of copies.
        strict: Fail if any case is refused, before anything is written.
        overwrite: Replace the data set that a conversion made, and set aside what was preprocessed from it.
        dry_run: Check and report; write nothing.
        show_progress: Show a progress bar on stderr.
    """

    dataset_id: int | None = None
    dataset_name: str | None = None
    split: Ratio | None = (7, 1, 2)
    seed: int = 12345
    resize: tuple[int, ...] | None = None
    spacings: Path | None = None
    workers: int | None = None
    link: bool = False
    strict: bool = False
    overwrite: bool = False
    dry_run: bool = False
    show_progress: bool = False


DEFAULTS = ConversionOptions()


def convert(kind: DatasetKind, source: Path, options: ConversionOptions) -> ConversionReport:
    """Convert a source to nnU-Net's raw format.

    Raises:
        ConversionError: if the conversion cannot start, no labelled case is left, or with `strict` any was refused.
            Nothing is written then.
    """
    if options.dataset_id is None:
        options = replace(options, dataset_id=kind.dataset_id)
    if options.dataset_name is None:
        options = replace(options, dataset_name=kind.dataset_name)
    _check_options(options)
    source = source.absolute()
    require_utf8(source)
    folders = NnUNetFolders.from_environment()
    dataset = dataset_folder_name(options.dataset_id, options.dataset_name)
    try:
        return _convert(kind, source, options, folders, dataset)
    except LockHeldError as error:
        raise ConversionError(f"another conversion with the id of {dataset} seems to be running: {error}") from error
    except NotOursError as error:
        raise ConversionError(str(error)) from error


def _convert(
    kind: DatasetKind, source: Path, options: ConversionOptions, folders: NnUNetFolders, dataset: str
) -> ConversionReport:
    targets = folders.targets(dataset)
    in_reach = [*targets, *map(work_folder, targets)]
    # Before anything else: never advise to overwrite where that would cost the source.
    keep_apart([source, *folders.all()], in_reach)
    check = partial(folders.check_free, dataset, overwrite=options.overwrite)
    found = _find(kind, source, options)
    keep_apart((file for case in found.cases for file in (case.image, *case.labels)), in_reach)
    if options.dry_run:
        check()
        return _report(source, folders, dataset, options, found, _check_and_write(kind, source, found, options, None))
    begun = partial(folders.begun_with_id_of, dataset)
    with FolderTransaction(targets, check=check, warn=_warn, also_settle=begun) as transaction:
        report = _write(kind, source, options, folders, dataset, found, *transaction.new)
        transaction.commit()
    report.kept = transaction.kept
    return report


def _write(
    kind: DatasetKind,
    source: Path,
    options: ConversionOptions,
    folders: NnUNetFolders,
    dataset: str,
    found: FoundCases,
    raw: Path,
    preprocessed: Path,
) -> ConversionReport:
    """Write all files of the data set, and sign the folders."""
    if options.strict:
        _stop_if_refused(_check_and_write(kind, source, found, options, None), options)
    target = RawDataset(raw, kind.file_ending)
    target.make_folders()
    report = _report(source, folders, dataset, options, found, _check_and_write(kind, source, found, options, target))
    for case in report.in_part("test"):
        target.move_to_test(case.case)
    target.remove_empty_test_folders()
    target.write_dataset_json(options.dataset_name, kind.channel_name, kind.labels, **kind.about)
    write_json(report.to_json(), raw / "conversion_report.json")
    if report.split is not None:
        only_fold = {"train": report.split["train"], "val": report.split["val"]}
        write_json([only_fold], preprocessed / "splits_final.json")
    for folder in (raw, preprocessed):
        if any(folder.iterdir()):
            record = Record(folder)
            record.add(folder)
            record.write("nnUNetv2_lightm convert")
    return report


def _warn(message: str) -> None:
    print(f"nnUNetv2_lightm convert: {message}", file=sys.stderr)


def _check_options(options: ConversionOptions) -> None:
    if options.workers is not None and options.workers < 1:
        raise ConversionError(f"{options.workers} workers: need at least 1")
    if options.resize is not None and min(options.resize) < 1:
        raise ConversionError(f"resize to {options.resize}: need at least 1 voxel along each axis")
    if options.resize is not None and (free := free_memory_bytes()) is not None:
        needed = 4 * math.prod(options.resize)  # float32, in which it is resampled
        if needed > free:
            raise ConversionError(
                f"resize to {options.resize}: one image takes {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free"
            )


def _find(kind: DatasetKind, source: Path, options: ConversionOptions) -> FoundCases:
    """Look through the source; refuse at once a source that cannot become a data set."""
    found = refuse_alike(kind.find_cases(source), source)
    labelled = sum(1 for case in found.cases if case.labels)
    if labelled == 0:
        raise ConversionError(
            f"no image with a label in {source}. Recognised layouts: {kind.layouts}.{_and_refusals(found.refused)}"
        )
    if options.split is not None:
        part_sizes(labelled, options.split)
    _stop_if_refused(found.refused, options)
    if options.spacings is not None:
        found.cases, unknown = with_spacings(found.cases, read_spacings(options.spacings))
        if unknown:
            example = found.cases[0]
            raise ConversionError(
                f"{options.spacings} names cases that are not in {source}: {', '.join(unknown)}. Name a case by "
                f"{example.case}, by {example.image.name} or by its number"
            )
    return found


def _check_and_write(
    kind: DatasetKind, source: Path, found: FoundCases, options: ConversionOptions, target: RawDataset | None
) -> list[CaseReport]:
    """Process every case; without a target, only check it."""
    jobs = []
    for case in found.cases:
        image = label = None
        if target is not None:
            image = target.image(case.case, "Tr" if case.labels else "Ts")
            label = target.label(case.case) if case.labels else None
        jobs.append((case, image, label, options.resize, options.link))
    outcomes = process_cases(
        kind.convert_case,
        jobs,
        workers=options.workers or default_workers(),
        title="checking" if target is None else "converting",
        show_progress=options.show_progress,
    )
    reports = list(found.refused)
    for case, outcome in zip(found.cases, outcomes):
        files = relative_names((case.image, *case.labels), source)
        status = "refused" if outcome.reason else "repaired" if outcome.repairs else "converted"
        report = CaseReport(case.case, status, files, outcome.reason, outcome.repairs, outcome.notes)
        if status != "refused":
            report.part = "train" if case.labels else "unlabelled"
        reports.append(report)
    return sorted(reports, key=lambda report: report.case)


def _report(
    source: Path,
    folders: NnUNetFolders,
    dataset: str,
    options: ConversionOptions,
    found: FoundCases,
    reports: list[CaseReport],
) -> ConversionReport:
    """Split what was converted, and put everything together."""
    _stop_if_refused(reports, options)
    labelled = {report.case for report in reports if report.part == "train"}
    if not labelled:
        raise ConversionError(f"no labelled case in {source} could be converted.{_and_refusals(reports)}")
    split = None
    if options.split is not None:
        source_of = {case.case: case.source for case in found.cases if case.case in labelled}
        split = split_cases(source_of, options.split, options.seed)
        part_of = {case: part for part, cases in split.items() for case in cases}
        for report in reports:
            report.part = part_of.get(report.case, report.part)
    return ConversionReport(
        dataset=dataset,
        source=source,
        raw_folder=folders.raw / dataset,
        options=_options_json(options),
        cases=reports,
        ignored_files=relative_names(found.ignored, source),
        links_out=found.links,
        split=split,
        dry_run=options.dry_run,
    )


def _options_json(options: ConversionOptions) -> dict[str, Any]:
    """The options that decide what is written."""
    return {
        "split": "none" if options.split is None else ":".join(f"{weight:g}" for weight in options.split),
        "seed": options.seed,
        "resize": None if options.resize is None else list(options.resize),
        "spacings": None if options.spacings is None else str(options.spacings),
        "link": options.link,
    }


def _stop_if_refused(reports: list[CaseReport], options: ConversionOptions) -> None:
    refused = sum(1 for report in reports if report.status == "refused")
    if options.strict and refused:
        raise ConversionError(f"{refused} case(s) refused, and --strict allows none.{_and_refusals(reports)}")


def _and_refusals(reports: list[CaseReport]) -> str:
    text = refusals(reports)
    return f"\n{text}" if text else ""

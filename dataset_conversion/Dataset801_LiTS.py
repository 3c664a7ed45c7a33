"""LiTS, the liver tumour segmentation challenge: from its own layout, or that of MSD Task03_Liver, to nnU-Net's."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from ._cli import make_parser, run
from ._convert import DEFAULTS, ConversionOptions, DatasetKind, convert
from ._files import FoundCases, SourceCase, list_files, relative_names, require_utf8, take_over
from ._geometry import adopt_geometry, resample_to_shape
from ._nifti import check_ct, check_label, read_volume, write_volume
from ._parallel import CaseOutcome
from ._report import CaseReport, ConversionReport

LABELS = {"background": 0, "liver": 1, "tumor": 2}

_CHALLENGE = re.compile(r"(?P<role>test-volume|volume|segmentation)-(?P<number>\d+)\.nii(\.gz)?", re.IGNORECASE)
_MSD = re.compile(r"liver_(?P<number>\d+)\.nii(\.gz)?", re.IGNORECASE)
_MSD_ROLES = {"imagestr": "volume", "labelstr": "segmentation", "imagests": "test-volume"}


def convert_lits(source: str | os.PathLike[str], options: ConversionOptions = DEFAULTS) -> ConversionReport:
    """Convert LiTS to nnU-Net's raw format, below nnUNet_raw and nnUNet_preprocessed.

    It reads the challenge's names `volume-N.nii[.gz]`, `segmentation-N.nii[.gz]` and `test-volume-N.nii[.gz]` in any
    nesting, and `imagesTr`, `labelsTr`, `imagesTs` with `liver_N.nii[.gz]`. If the geometries of image and label differ
    by rounding (at most a quarter of the shortest voxel edge), the label gets the image's; if they really differ, the
    case is refused, as are unpaired, truncated and duplicate files, NaN, and labels other than 0, 1, 2. Contradictory
    headers are repaired if it is clear how. A geometry that looks lost (1 mm, from 0 on) is noted; the option
    `spacings` repairs it. A refused case does not stop the others.

    With more than one worker, call this below `if __name__ == "__main__":`, because workers import the main module.

    Args:
        source: LiTS's folder.
        options: How to convert.
    Raises:
        ConversionError: if nothing can be converted; then nothing is written.
    """
    return convert(KIND, Path(source), options)


def find_cases(source: Path) -> FoundCases:
    """Pair the files of a source by their numbers."""
    found = FoundCases()
    files: dict[tuple[bool, int], dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for file in list_files(source, found.links):
        match = _CHALLENGE.fullmatch(file.name)
        role = match["role"].lower() if match else None
        if match is None and (match := _MSD.fullmatch(file.name)):
            role = _MSD_ROLES.get(file.parent.name.lower())
        if match is None or role is None:
            found.ignored.append(file)
            continue
        require_utf8(file)
        files[role == "test-volume", int(match["number"])][role].append(file)

    for (is_test, number), by_role in sorted(files.items()):
        case = f"LiTS_test_{number:03d}" if is_test else f"LiTS_{number:03d}"
        reason = _unpaired(by_role, is_test)
        if reason:
            names = relative_names((file for group in by_role.values() for file in group), source)
            found.refused.append(CaseReport(case, "refused", names, reason))
            continue
        image, *labels = (by_role[role][0] for role in (("test-volume",) if is_test else ("volume", "segmentation")))
        found.cases.append(SourceCase(case, "LiTS", image, tuple(labels)))
    return found


def _unpaired(by_role: Mapping[str, list[Path]], is_test: bool) -> str | None:
    for role, files in by_role.items():
        if len(files) > 1:
            return f"{len(files)} files for one {role}; which is right? Remove the others"
    if not is_test and "volume" not in by_role:
        return "label without an image"
    if not is_test and "segmentation" not in by_role:
        return "image without a label"
    return None


def convert_case(
    case: SourceCase, image_target: Path | None, label_target: Path | None, shape: tuple[int, ...] | None, link: bool
) -> CaseOutcome:
    """Check one case and write it, if there is a target.

    Raises:
        CaseRefused: if it cannot be converted.
    """
    volume = read_volume(case.image, case.spacing_mm)
    image, changes, notes = check_ct(volume.image, case.image.name)
    repairs, notes = volume.repairs + changes, volume.notes + notes
    label = None
    if case.labels:
        volume = read_volume(case.labels[0], case.spacing_mm)
        label, changes, present = check_label(volume.image, case.labels[0].name, tuple(LABELS.values()))
        repairs += volume.repairs + changes
        notes += volume.notes
        if (repair := adopt_geometry(label, image)) is not None:
            repairs.append(repair)
        if not present & {LABELS["liver"], LABELS["tumor"]}:
            notes.append(f"{case.labels[0].name} has no liver")
        if LABELS["background"] not in present:
            notes.append(f"{case.labels[0].name} has no background; was the label lost?")

    if image_target is None:
        return CaseOutcome(repairs, notes)
    # Take over all or none of a case's files: writing NIfTI rounds the geometry, and image and label must be rounded
    # alike.
    unchanged = shape is None and not repairs
    if unchanged and all(file.name.endswith(KIND.file_ending) for file in (case.image, *case.labels)):
        take_over(case.image, image_target, link=link)
        if label_target is not None:
            take_over(case.labels[0], label_target, link=link)
        return CaseOutcome(repairs, notes)
    for volume, target, is_label in ((image, image_target, False), (label, label_target, True)):
        if volume is not None and target is not None:
            resized = volume if shape is None else resample_to_shape(volume, shape, is_label=is_label)
            write_volume(resized, target)
    return CaseOutcome(repairs, notes)


KIND = DatasetKind(
    dataset_id=801,
    dataset_name="LiTS",
    file_ending=".nii.gz",
    channel_name="CT",
    labels=LABELS,
    layouts="volume-N.nii[.gz] with segmentation-N.nii[.gz], in any nesting, and imagesTr/liver_N.nii[.gz] with "
    "labelsTr/liver_N.nii[.gz]",
    about={
        "description": "Liver and liver tumours in contrast-enhanced abdominal CT",
        "reference": "Bilic et al., The Liver Tumor Segmentation Benchmark (LiTS), Medical Image Analysis 84 (2023)",
    },
    find_cases=find_cases,
    convert_case=convert_case,
)


def main(argv: list[str] | None = None) -> int:
    """Command line: convert LiTS. Returns the exit code."""
    parser = make_parser(
        KIND,
        command="lits",
        description="Convert LiTS (volume-N.nii[.gz] and segmentation-N.nii[.gz] in any nesting, or MSD Task03_Liver) "
        "to nnU-Net's raw format. Labels: background 0, liver 1, tumor 2.",
        axes=("Z", "Y", "X"),
    )
    return run(parser, argv, convert_lits, "3d_fullres")

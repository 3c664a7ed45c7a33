"""The chest X-rays of Montgomery and Shenzhen with lung masks: from Kaggle's or the NLM's layout to nnU-Net's."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ._cli import make_parser, run
from ._convert import DEFAULTS, ConversionOptions, DatasetKind, convert
from ._errors import CaseRefused, ConversionError
from ._files import FoundCases, SourceCase, list_files, relative_names, require_utf8, take_over
from ._geometry import resample_to_shape
from ._parallel import CaseOutcome
from ._png import GrayImage, read_gray_png, read_mask_png, write_gray_png
from ._report import CaseReport, ConversionReport

LABELS = {"background": 0, "lung": 1}
# The sets, by how the names of their images begin.
SETS = {"montgomery": "MCU", "shenzhen": "CHN"}
_HOSPITALS = {"montgomery": "Montgomery County", "shenzhen": "Shenzhen Hospital"}

# The role of a file, by the name of its folder.
_ROLES = {"cxr_png": "image", "mask": "mask", "masks": "mask", "leftmask": "left half", "rightmask": "right half"}


def convert_montgomery_shenzhen(
    source: str | os.PathLike[str], options: ConversionOptions = DEFAULTS, *, only: str | None = None
) -> ConversionReport:
    """Convert the Montgomery and Shenzhen sets, or one of them, to nnU-Net's raw format.

    It reads PNG files in folders `CXR_png`, `mask` or `masks`, `leftMask` and `rightMask` (in upper or lower case), in
    any nesting: the layouts of Kaggle's set and of the NLM. A mask has its image's name, with or without `_mask`.
    Images become one gray channel of 8 or 16 bits, masks {0, 1} by a threshold at half of their dtype's range. Images
    without a mask go to imagesTs. Masks without an image, one half without the other, duplicate and unreadable files,
    and images and masks that differ in size are refused, unless all are resized and one factor brings both together. A
    refused case does not stop the others.

    With more than one worker, call this below `if __name__ == "__main__":`, because workers import the main module.

    Args:
        source: The folder with the data.
        options: How to convert.
        only: Take one set alone, a key of ``SETS``; the images of the other are left out, as if they were not there.
    Raises:
        ConversionError: if nothing can be converted; then nothing is written.
    """
    return convert(KIND if only is None else _one_set(only), Path(source), options)


def _one_set(name: str) -> DatasetKind:
    """The kind with one set alone."""
    if name not in SETS:
        raise ConversionError(f"no set {name!r}; expected {' or '.join(SETS)}")

    def find(source: Path) -> FoundCases:
        found = find_cases(source)
        found.cases = [case for case in found.cases if case.source == SETS[name]]
        found.refused = [report for report in found.refused if _source_of(report.case) == SETS[name]]
        return found

    about = KIND.about | {"description": f"Lungs in frontal chest X-rays, {_HOSPITALS[name]} set"}
    layouts = f"{KIND.layouts}, and of these {name} alone, whose images begin with {SETS[name]}"
    return replace(KIND, find_cases=find, about=about, layouts=layouts)


def find_cases(source: Path) -> FoundCases:
    """Pair images and masks by their names; every image is a patient of its own."""
    found = FoundCases()
    files: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for file in list_files(source, found.links):
        role = _ROLES.get(file.parent.name.lower())
        if role is None or file.suffix.lower() != ".png":
            found.ignored.append(file)
            continue
        require_utf8(file)
        name = file.stem if role == "image" else re.sub("_mask$", "", file.stem, flags=re.IGNORECASE)
        files[name][role].append(file)

    for case, by_role in sorted(files.items()):
        if reason := _unpaired(by_role):
            names = relative_names((file for group in by_role.values() for file in group), source)
            found.refused.append(CaseReport(case, "refused", names, reason))
            continue
        labels = tuple(group[0] for role, group in sorted(by_role.items()) if role != "image")
        found.cases.append(SourceCase(case, _source_of(case), by_role["image"][0], labels))
    return found


def _unpaired(by_role: dict[str, list[Path]]) -> str | None:
    for role, files in by_role.items():
        if len(files) > 1:
            return f"{len(files)} files for one {role}; which is right? Remove the others"
    halves = {"left half", "right half"} & by_role.keys()
    if "image" not in by_role:
        return "mask without an image"
    if halves and "mask" in by_role:
        return f"a whole mask and a {' and '.join(sorted(halves))}; which is right? Remove one kind"
    if len(halves) == 1:
        missing = "right" if "left half" in halves else "left"
        return f"the {missing} half of its mask is missing"
    return None


def _source_of(case: str) -> str:
    prefix = case[:3].upper()
    return prefix if prefix in SETS.values() else "other"


def convert_case(
    case: SourceCase, image_target: Path | None, label_target: Path | None, shape: tuple[int, ...] | None, link: bool
) -> CaseOutcome:
    """Check one case and write it, if there is a target.

    Raises:
        CaseRefused: if it cannot be converted.
    """
    image = read_gray_png(case.image)
    if image.pixels.min() == image.pixels.max():
        image.notes.append(f"{case.image.name} is constant ({image.pixels.flat[0]})")
    mask = _merge([read_mask_png(file) for file in case.labels], case) if case.labels else None
    if mask is not None and mask.orientation != image.orientation:
        _check_orientations(image, mask)
    if mask is not None and mask.pixels.shape != image.pixels.shape:
        sizes = f"image {image.pixels.shape}, mask {mask.pixels.shape} (height, width)"
        if shape is None:
            raise CaseRefused(f"image and mask differ in size: {sizes}; --resize brings both to one")
        if not _is_scaled(mask.pixels.shape, image.pixels.shape):
            raise CaseRefused(f"image and mask differ in shape, so the mask is turned, cropped or another's: {sizes}")
        image.repairs.append(f"image and mask differed in size before they were resized: {sizes}")

    for gray, files, target, is_label in (
        (image, (case.image,), image_target, False),
        (mask, case.labels, label_target, True),
    ):
        if gray is None or target is None:
            continue
        if gray.is_plain and shape is None:
            take_over(files[0], target, link=link)
        elif shape is None:
            write_gray_png(gray.pixels, target)
        else:
            resized = resample_to_shape(sitk.GetImageFromArray(gray.pixels), shape, is_label=is_label)
            write_gray_png(sitk.GetArrayFromImage(resized), target)
    both = [image] if mask is None else [image, mask]
    return CaseOutcome([text for gray in both for text in gray.repairs], [text for gray in both for text in gray.notes])


def _is_scaled(first: tuple[int, int], second: tuple[int, int]) -> bool:
    """Whether one factor for both axes brings one size to the other, up to one pixel of the smaller."""
    (height, width), (large_height, large_width) = sorted((first, second))
    return abs(width - height * large_width / large_height) <= 1


def _check_orientations(image: GrayImage, mask: GrayImage) -> None:
    """Raises CaseRefused unless the sizes prove that both agree once each is turned upright."""
    if image.stored_shape == mask.stored_shape or image.pixels.shape != mask.pixels.shape:
        raise CaseRefused(
            f"image and mask ask viewers to turn them differently (EXIF orientation {image.orientation} and "
            f"{mask.orientation}, 1 is upright), and their sizes do not tell how the mask lies. Save both upright, "
            "without that tag"
        )


def _merge(masks: list[GrayImage], case: SourceCase) -> GrayImage:
    """One mask from all files: a whole one, or two halves."""
    shapes = {mask.pixels.shape for mask in masks}
    if len(shapes) > 1:
        raise CaseRefused(f"the halves of the mask differ in size: {', '.join(map(str, sorted(shapes)))}")
    if len({(mask.orientation, mask.stored_shape) for mask in masks}) > 1:
        raise CaseRefused("the halves of the mask ask viewers to turn them differently (EXIF orientation)")
    merged = GrayImage(np.maximum.reduce([mask.pixels for mask in masks]))
    merged.orientation, merged.stored_shape = masks[0].orientation, masks[0].stored_shape
    merged.is_plain = len(masks) == 1 and masks[0].is_plain and merged.pixels.dtype == np.uint8
    merged.repairs = [text for mask in masks for text in mask.repairs]
    merged.notes = [text for mask in masks for text in mask.notes]
    for mask, file in zip(masks, case.labels):
        if not mask.pixels.any():
            merged.notes.append(f"{file.name} in {file.parent.name} is empty")
    merged.pixels = merged.pixels.astype(np.uint8)
    return merged


KIND = DatasetKind(
    dataset_id=802,
    dataset_name="MontgomeryShenzhen",
    file_ending=".png",
    channel_name="X-ray",
    labels=LABELS,
    layouts="CXR_png/NAME.png with masks/NAME.png or masks/NAME_mask.png (Kaggle), and MontgomerySet/CXR_png with "
    "ManualMask/leftMask and rightMask, ChinaSet_AllFiles/CXR_png with mask (NLM), in any nesting",
    about={
        "description": "Lungs in frontal chest X-rays, Montgomery County and Shenzhen Hospital sets",
        "reference": "Jaeger et al., Quant Imaging Med Surg 4(6), 2014; Candemir et al., IEEE TMI 33(2), 2014",
    },
    find_cases=find_cases,
    convert_case=convert_case,
)


def main(argv: list[str] | None = None) -> int:
    """Command line: convert the chest X-rays. Returns the exit code."""
    parser = make_parser(
        KIND,
        command="montgomery-shenzhen",
        description="Convert the chest X-rays of Montgomery and Shenzhen (Kaggle's layout or the NLM's) to nnU-Net's "
        "raw format. Labels: background 0, lung 1.",
        axes=("HEIGHT", "WIDTH"),
    )
    parser.add_argument(
        "--only",
        choices=SETS,
        help="one set alone, by the names of its images: MCU... are Montgomery's, CHN... Shenzhen's",
    )
    return run(parser, argv, convert_montgomery_shenzhen, "2d")

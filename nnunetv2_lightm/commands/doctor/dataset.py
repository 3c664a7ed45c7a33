"""Checks of one data set: whether it can be trained on, and whether its checkpoints can be read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ...checkpoints.integrity import is_torn_checkpoint
from ...files import some_of
from ...nnunet import FOLDERS, datasets_named
from ...nnunet_faults import (
    faults_of_dataset_json,
    faults_of_plans,
    faults_of_splits,
    missing_files,
    plan_again,
    preprocessed_cases,
    resolved_configuration,
)
from .finding import Finding, fail, note, ok
from .images import check_images


class _Unreadable(Exception):
    """A JSON file is missing or not JSON; the message names it."""


def check_dataset(name_or_id: str, plans_name: str) -> list[Finding]:
    """Check raw data, plans, preprocessed cases and split of a data set, as ``nnUNetv2_train`` will use them.

    Args:
        name_or_id: ``Dataset801_LiTS`` or ``801``.
        plans_name: Name of the plans file without ending, ``nnUNetPlans`` unless the user planned otherwise.
    """
    folders = {variable: Path(value) for variable in FOLDERS if (value := os.environ.get(variable))}
    names = datasets_named(name_or_id, folders.values())
    if len(names) != 1:
        return [_not_one(name_or_id, names, folders)]
    (dataset,) = names
    findings = []
    if "nnUNet_raw" in folders and (folders["nnUNet_raw"] / dataset).is_dir():
        findings += _raw(folders["nnUNet_raw"] / dataset)
    if "nnUNet_preprocessed" in folders:
        findings += _preprocessed(folders["nnUNet_preprocessed"] / dataset, plans_name)
    if "nnUNet_results" in folders:
        findings += _checkpoints(folders["nnUNet_results"] / dataset)
    return findings


def _not_one(name_or_id: str, names: list[str], folders: dict[str, Path]) -> Finding:
    subject = f"data set {name_or_id}"
    if names:
        message = f"several data sets have this id, and nnU-Net then accepts none of them: {', '.join(names)}"
        return fail(subject, message, "rename one")
    places = ", ".join(f"{variable}={folder}" for variable, folder in folders.items()) or "no folder is set"
    return fail(subject, f"not found: {places}", "nnUNetv2_lightm convert --help   # or put it into nnUNet_raw")


def _raw(folder: Path) -> list[Finding]:
    """Images without a label and labels without an image."""
    subject = f"raw {folder.name}"
    try:
        content = _read(folder / "dataset.json")
    except _Unreadable as error:
        return [fail(subject, str(error), "write it as nnU-Net's documentation/dataset_format.md describes")]
    if faults := faults_of_dataset_json(content):
        return [fail(subject, f"dataset.json: {'; '.join(faults)}")]
    if "dataset" in content:
        count = len(content["dataset"])
        return [ok(subject, f"{count} cases, listed in dataset.json"), *check_images(folder, content)]
    ending = content["file_ending"]
    images = {name.rpartition("_")[0] for name in _files(folder / "imagesTr", ending)}
    labels = {name.removesuffix(ending) for name in _files(folder / "labelsTr", ending)}
    findings = []
    if unlabelled := sorted(images - labels):
        lost = [str(folder / "labelsTr" / (case + ending)) for case in unlabelled]
        message = f"{len(lost)} images of imagesTr have no label: {some_of(lost)}"
        findings.append(fail(subject, message, "add the labels, or move the images to imagesTs"))
    if orphans := sorted(labels - images):
        findings.append(note(subject, f"{len(orphans)} labels have no image: {some_of(orphans)}"))
    return [*(findings or [ok(subject, f"{len(images)} cases")]), *check_images(folder, content)]


def _preprocessed(folder: Path, plans_name: str) -> list[Finding]:
    subject, again = f"preprocessed {folder.name}", plan_again(folder.name)
    try:
        dataset_json, plans = _read(folder / "dataset.json"), _read(folder / f"{plans_name}.json")
        _read(folder / "dataset_fingerprint.json")
    except _Unreadable as error:
        return [fail(subject, str(error), again)]
    if faults := faults_of_dataset_json(dataset_json):
        return [fail(subject, f"dataset.json: {'; '.join(faults)}", again)]
    configurations = ([*plans.get("configurations", {})] if isinstance(plans, dict) else []) or [""]
    ending = dataset_json["file_ending"]
    return [finding for name in configurations for finding in _configuration(folder, plans, name, ending)]


def _configuration(folder: Path, plans: dict[str, Any], configuration: str, ending: str) -> list[Finding]:
    subject = f"{folder.name} {configuration}".strip()
    if faults := faults_of_plans(plans, configuration):
        return [fail(subject, f"plans: {'; '.join(faults)}", plan_again(folder.name))]
    again = plan_again(folder.name, configuration)
    settings = resolved_configuration(plans, configuration)
    data = folder / settings["data_identifier"]
    cases = preprocessed_cases(data) if data.is_dir() else []
    if not cases:
        return [note(subject, f"planned, but not preprocessed ({data})", again)]
    splits_file = folder / "splits_final.json"
    try:
        splits = _read(splits_file) if splits_file.exists() else []
    except _Unreadable as error:
        return [fail(subject, str(error), f"fix {splits_file} or remove it: nnU-Net makes a new one")]
    if faults := faults_of_splits(splits):
        message = f"{splits_file}: {some_of(faults, separator='; ')}"
        return [fail(subject, message, f"fix {splits_file}, or remove it: nnU-Net makes a new one")]
    wanted = sorted({*cases, *(case for split in splits for part in ("train", "val") for case in split[part])})
    if missing := missing_files(data, wanted, ground_truth=(folder / "gt_segmentations", ending)):
        message = f"{len(missing)} files are missing: {some_of(missing)}"
        return [fail(subject, message, again, f"or fix the split, {splits_file}")]
    return [ok(subject, f"{len(cases)} cases, patch {settings['patch_size']}, batch size {settings['batch_size']}")]


def _checkpoints(folder: Path) -> list[Finding]:
    """Damaged checkpoints: a new training can start, but --c and prediction would fail."""
    files = sorted(folder.glob("*/fold_*/checkpoint_*.pth"))
    torn = [path for path in files if is_torn_checkpoint(path)]
    subject = f"results {folder.name}"
    if torn:
        message = f"{len(torn)} of {len(files)} checkpoints are cut off or damaged: {some_of(torn)}"
        advice = "move them away; train on with --c, or predict with -chk checkpoint_best.pth where that one is sound"
        return [note(subject, message, advice)]
    return [ok(subject, f"{len(files)} checkpoints, undamaged")] if files else []


def _read(path: Path) -> Any:
    """Content of a JSON file. Raises _Unreadable."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise _Unreadable(f"{path} is missing") from error
    except (OSError, ValueError, RecursionError) as error:
        raise _Unreadable(f"{path} cannot be read: {error}") from error


def _files(folder: Path, ending: str) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.endswith(ending)] if folder.is_dir() else []

"""All steps from the images to the zip; whatever ends them, the same command continues."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunetv2_lightm.deploy.check import EQUAL_LABELS
from nnunetv2_lightm.deploy.nnunet_zip import checkpoint_hashes, is_model_zip, read_entries, write_entries
from nnunetv2_lightm.evaluation.json_files import read_evaluation
from nnunetv2_lightm.files import check_output, write_text
from nnunetv2_lightm.measure.machine import machine
from nnunetv2_lightm.runs.nnunet_steps import (
    Training,
    evaluate_step,
    is_complete_training,
    predict_step,
    training_continuation,
    training_outputs,
)
from nnunetv2_lightm.runs.pipeline import Pipeline, Step, software_versions
from nnunetv2_lightm.runs.progress import Progress

from .card import Facts, model_card
from .hold_out import WeightsError, hold_out
from .models import FOLD, MODELS, TRAINER, Model

CARD = "MODEL_CARD.md"


def make_weights(name: str, folder: Path, *, budget: str, device: str) -> Path:
    """Make NAME.zip in a folder, with its card inside and next to it.

    Args:
        name: A key of ``MODELS``.
        folder: NAME.zip and NAME.md in it are what to hand out; NAME has all else: data, training, logs. A NAME.md that
            was not made here, or was changed since, is renamed.
        budget: Suffix of the trainer, without a seed.
        device: "cpu", "cuda" or "mps".

    Raises:
        WeightsError: if the data are missing or not those of the model, or float16 changes too many labels.
        PipelineError: if the folder cannot be used.
        CommandFailed: if a step fails.
        OSError: if NAME.zip in the folder was not made here.
    """
    model, out = MODELS[name], folder / f"{name}.zip"
    source = _source(model)
    check_output(out, ours=is_model_zip)
    folder = folder / name
    raw = folder / "raw" / model.data.name
    converted = folder / "converted"
    convert, *_ = model.data.steps(converted, source)
    _, *prepare = model.data.steps(folder, source)
    _run(folder / "steps" / "conversion", [convert], _folders(converted))
    train_cases, _ = hold_out(converted / "raw" / model.data.name, raw, model.held_out, model.cases)

    trainer = f"{TRAINER}_{budget}_seed0"
    training = Training(model.data.name, model.data.configuration, model.data.plans, trainer, FOLD, device)
    as_trained, packed = folder / "predictions" / "as_trained", folder / "packed.zip"
    train, *others = _training_steps(training, folder, as_trained, packed)
    where = folder / "steps" / f"machine_of_{trainer}.json"

    def end(step: Step) -> None:
        if step is train:
            _note_where(where, device)

    trained = _run(folder / "steps" / "training", [*prepare, train, *others], _folders(folder), on_end=end)
    if not where.exists():  # a kill came between the training's end and this note
        _note_where(where, device)
    trained_on = json.loads(where.read_text(encoding="utf-8"))

    # As a user has it: the installed zip, and nothing else.
    installed, scores = folder / "installed", folder / "scores.json"
    as_installed = folder / "predictions" / "as_installed"
    steps = _installed_steps(training, installed / "results", packed, raw, as_installed, scores)
    _run(folder / "steps" / "installed", steps, _folders(installed))

    equal = equal_labels(as_trained, as_installed, model.ending)
    if equal < EQUAL_LABELS:
        raise WeightsError(
            f"{packed}: float16 is too coarse for this model: {100 * equal:.4f} % of the voxels in {as_installed} have "
            f"the labels of {as_trained}; {100 * EQUAL_LABELS:g} % are needed. Train longer, or with another budget"
        )
    entries = read_entries(packed)
    place = training.fold_folder(Path()).parent.as_posix()
    card = model_card(
        model,
        Facts(
            archive=out.name,
            trainer=trainer,
            device=trained_on["device"],
            train_cases=train_cases,
            plans=json.loads(entries[f"{place}/plans.json"]),
            evaluation=read_evaluation(scores),
            equal_labels=equal,
            train_seconds=trained.seconds(train),
            machine=trained_on["machine"],
            sha256=checkpoint_hashes(entries),
        ),
    )
    write_entries(out, {**entries, f"{place}/{CARD}": card.encode()})
    with trained.writing(out.with_suffix(".md")):
        write_text(out.with_suffix(".md"), card)
    return out


def _note_where(file: Path, device: str) -> None:
    """Write down where a training ended, when it has: the same command may go on elsewhere, or with other versions."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps({"device": device, "machine": machine()}))


def equal_labels(first: Path, second: Path, ending: str) -> float:
    """Share of the voxels that two folders of segmentations agree in.

    Raises:
        WeightsError: if they do not hold the same images.
    """
    names = [sorted(path.name for path in folder.glob(f"*{ending}")) for folder in (first, second)]
    if names[0] != names[1] or not names[0]:
        raise WeightsError(
            f"{first} and {second}: hold {len(names[0])} and {len(names[1])} segmentations, not the same"
        )
    equal = voxels = 0
    for name in names[0]:
        a, b = (sitk.GetArrayFromImage(sitk.ReadImage(str(folder / name))) for folder in (first, second))
        equal += int(np.sum(a == b))
        voxels += a.size
    return equal / voxels


def _source(model: Model) -> Path:
    """The folder of data sets.

    Raises:
        WeightsError: if it, or the model's data set in it, is not there.
    """
    value = os.environ.get("NNUNETV2_LIGHTM_DATA")
    if not value:
        raise WeightsError(
            "NNUNETV2_LIGHTM_DATA is not set: export NNUNETV2_LIGHTM_DATA=FOLDER, with the data sets in it"
        )
    source = Path(value).absolute()
    command = model.data.steps(Path(), source)[0].command
    for word in command:
        if word.startswith(str(source)) and not Path(word).is_dir():
            raise WeightsError(f"{word}: is not there; NNUNETV2_LIGHTM_DATA names the folder that has it")
    return source


def _training_steps(training: Training, folder: Path, predictions: Path, packed: Path) -> list[Step]:
    """Train, predict the cases that are kept out, pack."""
    fold = training.fold_folder(folder / "results")
    images = folder / "raw" / training.dataset / "imagesTs"
    export = (
        "nnUNetv2_lightm",
        "export",
        "--zip",
        str(fold.parent),
        str(packed),
        "-f",
        FOLD,
        "--check-images",
        str(images),
        "--overwrite",
    )
    return [
        Step(
            f"train_{training.trainer}",  # the trainings of all budgets share the state, which knows their seconds
            training.train_command,
            outputs=training_outputs(fold),
            continuation=partial(training_continuation, fold),
            found=partial(is_complete_training, fold),
        ),
        predict_step(training, fold, images, predictions, name="predict"),
        Step("pack", export, outputs=(packed,), inputs=(training_outputs(fold)[0],)),
    ]


def _installed_steps(
    training: Training, results: Path, packed: Path, raw: Path, predictions: Path, scores: Path
) -> list[Step]:
    """Install into an empty nnUNet_results, predict the same cases, score them."""
    fold = training.fold_folder(results)
    checkpoint = fold / "checkpoint_final.pth"
    install = ("nnUNetv2_install_pretrained_model_from_zip", str(packed))
    return [
        Step("install", install, outputs=(checkpoint,), leftovers=(results / training.dataset,), inputs=(packed,)),
        predict_step(training, fold, raw / "imagesTs", predictions, name="predict_installed"),
        evaluate_step(predictions, raw / "labelsTs", scores, name="evaluate"),
    ]


def _folders(folder: Path) -> dict[str, str]:
    return {f"nnUNet_{kind}": str(folder / kind) for kind in ("raw", "preprocessed", "results")}


def _run(
    state: Path,
    steps: Sequence[Step],
    folders: Mapping[str, str],
    on_end: Callable[[Step], None] = lambda step: None,
) -> Pipeline:
    """Run what is not complete, in few processes unless the environment says otherwise."""

    def end(step: Step, seconds: float) -> None:
        progress.end(step, seconds)
        on_end(step)

    few = {"nnUNet_n_proc_DA": "2", "nnUNet_def_n_proc": "2", "OMP_WAIT_POLICY": "PASSIVE"}
    pipeline = Pipeline(state, steps, environment={**few, **os.environ, **folders}, version=software_versions())
    progress = Progress(steps)
    pipeline.run(progress.update, on_skip=progress.skip, on_end=end)
    return pipeline

"""The schema of results.json: type and range of every value that a report prints or opens."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from ..json_input import (
    MAX_LONG_TEXT,
    Amount,
    ClassName,
    Content,
    Count,
    FileEnding,
    FileName,
    FolderPath,
    Fraction,
    Labels,
    Length,
    Number,
    Positive,
    Text,
    is_scalar,
)

ITERATIONS, SECONDS = "iterations", "seconds"
BUDGET = re.compile(r"(?P<epochs>[1-9]\d{0,8})epochs?(?:_(?P<iterations>[1-9]\d{0,8})iters?)?")
MAX_SECONDS = 1e9  # of a budget of time
MACHINE_DEPTH = 3
LongText = Annotated[str, Field(max_length=MAX_LONG_TEXT)]
Command = Annotated[list[LongText], Field(max_length=10**4)]
Side = Annotated[int, Field(ge=1, le=10**6)]


class EpochContent(Content):
    """An epoch; null where nnU-Net logged NaN."""

    epoch: Annotated[int, Field(ge=0, le=10**7)]
    train_loss: Number | None
    val_loss: Number | None
    pseudo_dice: list[Fraction | None]
    seconds: Amount | None


class RunContent(Content):
    """A training; :func:`nnunetv2_lightm.evaluation.json_files.evaluation_from_json` checks its evaluation."""

    trainer: ClassName
    name: ClassName
    fold: Annotated[int, Field(ge=0, le=10**4)]
    seed: Annotated[int, Field(ge=0, lt=10**9)]
    complete: bool
    iterations_per_epoch: Positive
    validation_iterations_per_epoch: Count
    epochs: list[EpochContent]
    evaluation: dict[str, Any] | None
    predictions: FolderPath | None
    references: FolderPath | None
    images: FolderPath | None
    failure: LongText | None = None


class CalibratedContent(Content):
    """Seconds of an iteration, and the overhead of an epoch."""

    train_seconds: Amount
    validation_seconds: Amount
    epoch_seconds: Amount = 0.0


class ComplexityContent(Content):
    """Costs of one patch; null or absent where not measured."""

    parameters: Count | None = None
    macs: Amount | None = None
    forward_seconds: Amount | None = None
    step_seconds: Amount | None = None
    forward_mib: Amount | None = None
    step_mib: Amount | None = None


class ResultsContent(Content):
    """The whole file; its runs are checked one by one, as :class:`RunContent`."""

    title: Text
    dataset: FileName
    configuration: FileName
    plans: FileName
    patch_size: Annotated[list[Side], Field(min_length=2, max_length=3)]
    batch_size: Positive
    spacing_mm: Annotated[list[Length], Field(min_length=2, max_length=3)]
    labels: Labels
    file_ending: FileEnding
    reader: ClassName | None
    equal: Literal["iterations", "seconds"]
    budget: Any
    scored_on: Literal["test", "validation"]
    commands: Annotated[list[Command], Field(max_length=10**3)]
    machine: dict[Text, Any]
    calibration: dict[ClassName, CalibratedContent]
    complexity: dict[ClassName, ComplexityContent]
    runs: Annotated[list[Any], Field(max_length=10**5)]
    not_pictured: Text | None = None

    @field_validator("spacing_mm")
    @classmethod
    def _check_spacing(cls, spacing_mm: list[float], info: ValidationInfo) -> list[float]:
        if len(spacing_mm) != len(info.data.get("patch_size", spacing_mm)):
            raise ValueError("expected one number for each axis of patch_size")
        return spacing_mm

    @field_validator("budget")
    @classmethod
    def _check_budget(cls, budget: object, info: ValidationInfo) -> object:
        if info.data.get("equal") == ITERATIONS:
            if not isinstance(budget, str) or BUDGET.fullmatch(budget) is None:
                raise ValueError("expected a budget of iterations such as 20epochs_100iters")
        elif type(budget) not in (int, float) or not 0 < budget < MAX_SECONDS:
            raise ValueError("expected seconds, a number above 0")
        return budget

    @field_validator("machine")
    @classmethod
    def _check_machine(cls, machine: dict) -> dict:
        check_scalars(machine, MACHINE_DEPTH)
        return machine


def check_scalars(content: dict, depth: int) -> None:
    """Check a nested mapping of texts and finite numbers.

    Raises: ValueError: if it holds anything else, or nests deeper than `depth`.
    """
    for key, value in content.items():
        if isinstance(value, dict):
            if not depth:
                raise ValueError(f"{key}: mappings in each other, too deep")
            check_scalars(value, depth - 1)
        elif not is_scalar(value):
            raise ValueError(f"{key}: expected a text or a finite number")

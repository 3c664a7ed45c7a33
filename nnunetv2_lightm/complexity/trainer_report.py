"""Trainers on one configuration, counted and measured, as Markdown, CSV and JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from ..escaping import escape_markdown, to_json
from ..evaluation.tables import format_markdown, records_as_csv
from ..measure.machine import processor, version
from .counting import TrueCount, on_meta, true_count
from .errors import PlansError
from .measurement import FORWARD, TRAINING, Measurement, measure
from .plans import PlannedConfiguration, build_network, find_trainer, read_configuration
from .true_columns import TRUE_HEADER, TRUE_LEGEND, true_cells, true_record

WORKS = {FORWARD: "forward", TRAINING: "training step"}


@dataclass(frozen=True)
class TrainerRow:
    """A trainer's network.

    Attributes:
        trainer: Its name.
        true: Counts for one patch.
        measured: By work; empty if it is only counted.
    """

    trainer: str
    true: TrueCount
    measured: dict[str, Measurement]


def trainer_report(
    trainers: Sequence[str],
    dataset: str,
    configuration: str,
    plans_identifier: str,
    *,
    device: str | None,
    output_format: str,
) -> str:
    """Count the networks that trainers build for a configuration, measure them, and format the result.

    Args:
        trainers: Names, with or without a budget.
        dataset: Number or full name.
        configuration: E.g. "3d_fullres".
        plans_identifier: E.g. "nnUNetPlans".
        device: Measure on "cpu" or "cuda"; None: count only.
        output_format: A key of ``FORMATS``.
    Raises: PlansError: if a trainer, the data set, its plans or the configuration is not found.
    """
    planned = read_configuration(dataset, configuration, plans_identifier)
    # Find and count all of them, which takes seconds, before measuring the first.
    classes = {name: find_trainer(name) for name in trainers}
    counts = {name: count_trainer(trainer, planned) for name, trainer in classes.items()}
    rows = [
        TrainerRow(name, true, {work: measure(name, planned, work, device) for work in WORKS} if device else {})
        for name, true in counts.items()
    ]
    return FORMATS[output_format](planned, rows)


def count_trainer(trainer: type, planned: PlannedConfiguration) -> TrueCount:
    """True counts of the network that predicts, for one patch; trainer: its class.

    Raises: PlansError: if the trainer builds no network from these plans.
    """
    try:
        network = on_meta(lambda: build_network(trainer, planned))
    except ValueError as error:
        raise PlansError(f"{trainer.__name__}: {error}") from error
    return true_count(network, planned.sample_shape)


def as_markdown(planned: PlannedConfiguration, rows: Sequence[TrainerRow]) -> str:
    """A title, one row per trainer, and a legend."""
    patch = "x".join(map(str, planned.sample_shape[1:]))
    channels = f"input channels: {planned.sample_shape[0]}, output channels: {planned.num_outputs}"
    names = ", ".join(map(_escaped, (planned.dataset, planned.plans_file.stem, planned.name)))
    title = f"{names}: patch {patch}, {channels}"
    works = [work for work in WORKS if rows[0].measured]
    header = ["trainer", *TRUE_HEADER, *(f"{WORKS[work]}, {unit}" for work in works for unit in ("s", "MiB"))]
    table = [header]
    for row in rows:
        cells = [cell for work in works for cell in _measured_cells(row.measured[work])]
        table.append([_escaped(row.trainer), *true_cells(row.true), *cells])
    return "\n\n".join([title, format_markdown(table), _legend(rows)]) + "\n"


def as_csv(planned: PlannedConfiguration, rows: Sequence[TrainerRow]) -> str:
    """A line for each trainer."""
    return records_as_csv([_record(planned, row) for row in rows])


def as_json(planned: PlannedConfiguration, rows: Sequence[TrainerRow]) -> str:
    """The content of the CSV, plus the quartiles of the times and the machine."""
    content = {
        "machine": {"processor": processor(), "torch": version("torch"), "nnunetv2": version("nnunetv2")},
        "trainers": [
            {**_record(planned, row), "measured": {work: asdict(one) for work, one in row.measured.items()}}
            for row in rows
        ],
    }
    return to_json(content)


FORMATS: dict[str, Callable[[PlannedConfiguration, Sequence[TrainerRow]], str]] = {
    "markdown": as_markdown,
    "csv": as_csv,
    "json": as_json,
}


def _escaped(name: str) -> str:
    return escape_markdown(name, inner_underscores=False)


def _measured_cells(measured: Measurement) -> tuple[str, str]:
    seconds = "-" if measured.seconds is None else f"{measured.seconds.median:.3g}"
    return seconds, "-" if measured.transient_mib is None else f"{measured.transient_mib:,.0f}"


def _legend(rows: Sequence[TrainerRow]) -> str:
    lines = [f"- **counted**: {TRUE_LEGEND}"]
    measurements = [measurement for row in rows for measurement in row.measured.values()]
    if measurements:
        settings = sorted({one.setting for one in measurements if one.setting})
        lines += [
            "- **measured**: one patch, batch 1: median seconds, and peak memory while it runs, on top of what network",
            "  and optimizer hold. Forward is one pass of prediction; the training step is the trainer's own.",
            "- **here**: " + "; ".join([processor(), f"torch {version('torch')}", *settings]) + ".",
        ]
    for row in rows:
        for work, one in row.measured.items():
            if one.not_measured:
                missing = "memory" if one.seconds else "time and memory"
                reason = f"{_escaped(row.trainer)}, {WORKS[work]}: {_escaped(one.not_measured)}"
                lines.append(f"- **not measured**: {missing} of {reason}")
    return "\n".join(lines)


def _record(planned: PlannedConfiguration, row: TrainerRow) -> dict[str, object]:
    record = {
        "trainer": row.trainer,
        "dataset": planned.dataset,
        "plans": planned.plans_file.stem,
        "configuration": planned.name,
        "patch": "x".join(map(str, planned.sample_shape[1:])),
        **true_record(row.true),
    }
    for work, measured in row.measured.items():
        record[f"{work}_seconds"] = measured.seconds and measured.seconds.median
        record[f"{work}_transient_mib"] = measured.transient_mib
    return record

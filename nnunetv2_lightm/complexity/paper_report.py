"""The counted tables of the paper as Markdown, CSV and JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from ..escaping import to_json
from ..evaluation.tables import format_markdown, records_as_csv
from .paper_convention import VERSION
from .paper_study import OURS, CountedRow, CountedTable, Verdict, count_tables, judge_claims
from .paper_tables import FIRST
from .true_columns import TRUE_HEADER, TRUE_LEGEND, giga, true_cells, true_record

_LEGEND = f"""\
Printed by `nnUNetv2_lightm complexity --paper`.

- **paper**: the columns that it prints.
- **its convention**: thop {VERSION} on the paper's networks, for the whole batch, with all of Mamba uncounted.
  What the paper calls GFLOPs are GMACs.
- **true**: {TRUE_LEGEND}
- **{FIRST}** is the first public revision of the authors' code: the paper's numbers belong to that network."""

_HEADER = [
    "model",
    "paper: Params(M)",
    "GFLOPs",
    "its convention: parameters",
    "GMACs, batch",
    f"true: {TRUE_HEADER[0]}",
    *TRUE_HEADER[1:],
]


def paper_report(output_format: str) -> str:
    """Count everything and format it.

    Args:
        output_format: A key of ``FORMATS``.
    Raises: ThopMissing, ImportError: naming the command that installs what is missing.
    """
    tables = count_tables()
    return FORMATS[output_format](tables, list(judge_claims(tables)))


def as_markdown(tables: list[CountedTable], verdicts: list[Verdict]) -> str:
    """A table for each of the paper's tables, a sentence on what does not reproduce, and a table of the claims."""
    parts = ["# The paper's tables in two conventions", _LEGEND]
    for counted in tables:
        given = counted.table.input
        size = "x".join(map(str, (given.batch, *given.shape)))
        title = f"## Table {counted.table.number}: {counted.table.title}, input {size}, {given.num_classes} classes"
        parts += [title, format_markdown([_HEADER, *map(_markdown_row, counted.rows)]), _reproduction(counted)]
    header = ["section", "claim", "of", "the paper", "from its tables", *(f"true: {model}" for model in OURS)]
    claims = [
        "## What the paper claims, and what is true",
        "The last three columns compare true counts; in brackets with the scans.",
        format_markdown([header, *map(_claim_row, verdicts)]),
    ]
    return "\n\n".join([*parts, *claims]) + "\n"


def as_csv(tables: list[CountedTable], verdicts: list[Verdict]) -> str:
    """A line for each network; the claims, which are another table, are left out."""
    return records_as_csv([_record(counted.table.number, row) for counted in tables for row in counted.rows])


def as_json(tables: list[CountedTable], verdicts: list[Verdict]) -> str:
    """All numbers; what the paper does not have is null."""
    content = {
        "thop": VERSION,
        "tables": [
            {
                "number": counted.table.number,
                "title": counted.table.title,
                "input": asdict(counted.table.input),
                "rows": [_record(counted.table.number, row) for row in counted.rows],
            }
            for counted in tables
        ],
        "claims": [
            {
                **{key: value for key, value in asdict(verdict.claim).items() if key != "kind"},
                "form": verdict.claim.kind.name.lower(),
                "from_tables": verdict.from_tables,
                "true": verdict.true,
                "true_with_scan": verdict.true_with_scan,
            }
            for verdict in verdicts
        ],
    }
    return to_json(content)


FORMATS: dict[str, Callable[[list[CountedTable], list[Verdict]], str]] = {
    "markdown": as_markdown,
    "csv": as_csv,
    "json": as_json,
}


def _markdown_row(counted: CountedRow) -> list[str]:
    row, paper = counted.row, counted.paper
    return [
        row.model,
        row.params or "-",
        row.gflops or "-",
        f"{paper.parameters:,}" if paper else "-",
        giga(paper.macs) if paper else "-",
        *true_cells(counted.true),
    ]


def _reproduction(counted: CountedTable) -> str:
    """How many printed numbers reproduce, and by how much the others are off."""
    sentences, printed, reproduced = [], 0, 0
    for row in counted.rows:
        if row.row.params is None:
            continue
        cells = (
            (row.reproduces_params, "Params(M)", row.row.params, row.paper.parameters / 1e6),
            (row.reproduces_gflops, "GFLOPs", row.row.gflops, row.paper.macs / 1e9),
        )
        for holds, column, paper, counted in cells:
            printed, reproduced = printed + 1, reproduced + holds
            if not holds:
                more = f"{float(paper) - round(counted, 2):.2f} more than"
                sentences.append(
                    f"{row.row.model}'s {column} are a misprint: {paper}, {more} the {counted:.2f} of its convention."
                )
    return " ".join([f"{reproduced} of {printed} printed numbers reproduce to both decimals.", *sentences])


def _claim_row(verdict: Verdict) -> list[str]:
    claim = verdict.claim
    cells = []
    for model in OURS:
        cell = claim.format(verdict.true[model])
        if verdict.true_with_scan is not None:
            cell += f" ({claim.format(verdict.true_with_scan[model])})"
        cells.append(cell)
    rival = f"{claim.rival}, Table {claim.table}"
    return [claim.where, claim.words, rival, claim.printed, claim.format(verdict.from_tables), *cells]


def _record(number: int, counted: CountedRow) -> dict[str, object]:
    row, paper = counted.row, counted.paper
    return {
        "table": number,
        "model": row.model,
        "printed_params_m": row.params,
        "printed_gflops": row.gflops,
        "paper_parameters": paper.parameters if paper else None,
        "paper_macs_batch": paper.macs if paper else None,
        "reproduces_params": counted.reproduces_params,
        "reproduces_gflops": counted.reproduces_gflops,
        **true_record(counted.true),
    }

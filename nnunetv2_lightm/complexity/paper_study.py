"""The paper's tables counted in both conventions, and its claims checked in each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .claims import CLAIMS, Claim
from .counting import TrueCount, on_meta, true_count
from .paper_convention import PaperCount, paper_count
from .paper_tables import FIRST, HEAD, TABLES, TEXT, Row, Table

OURS = (FIRST, HEAD, TEXT)


@dataclass(frozen=True)
class CountedRow:
    """A network of the paper.

    Attributes:
        row: The network, and what the paper prints.
        paper: Counts in the paper's convention, for the whole batch; None: not a network of the paper's code.
        true: True counts, for one sample.
    """

    row: Row
    paper: PaperCount | None
    true: TrueCount

    @property
    def reproduces_params(self) -> bool | None:
        """Whether the paper prints what is counted, to its two decimals; None: it does not have the network."""
        return None if self.row.params is None else f"{self.paper.parameters / 1e6:.2f}" == self.row.params

    @property
    def reproduces_gflops(self) -> bool | None:
        return None if self.row.gflops is None else f"{self.paper.macs / 1e9:.2f}" == self.row.gflops


@dataclass(frozen=True)
class CountedTable:
    """A table of the paper with its rows counted."""

    table: Table
    rows: tuple[CountedRow, ...]

    def __getitem__(self, model: str) -> CountedRow:
        (row,) = (counted for counted in self.rows if counted.row.model == model)
        return row


@dataclass(frozen=True)
class Verdict:
    """A claim, and what is true; values in the claim's own terms, e.g. how many times as much.

    Attributes:
        claim: What the paper says.
        from_tables: The value from the numbers that its tables print.
        true: The value from the true counts, for each of our networks; computation without the scans.
        true_with_scan: The same with the scans; None for parameters.
    """

    claim: Claim
    from_tables: float
    true: dict[str, float]
    true_with_scan: dict[str, float] | None


def count_tables() -> list[CountedTable]:
    """Raises: ThopMissing, ImportError: naming the command that installs what is missing."""
    return [CountedTable(table, tuple(_count(row, table) for row in table.rows)) for table in TABLES]


def judge_claims(tables: list[CountedTable]) -> Iterator[Verdict]:
    """Check each claim against the counted tables."""
    by_number = {counted.table.number: counted for counted in tables}
    for claim in CLAIMS:
        table = by_number[claim.table]
        rival, first = table[claim.rival], table[FIRST]
        ours = {model: table[model].true for model in OURS}
        if claim.about_parameters:
            from_tables = claim.value(float(rival.row.params), float(first.row.params))
            true = {model: claim.value(rival.true.parameters, count.parameters) for model, count in ours.items()}
            yield Verdict(claim, from_tables, true, None)
        else:
            from_tables = claim.value(float(rival.row.gflops), float(first.row.gflops))
            true = {model: claim.value(rival.true.macs, count.macs) for model, count in ours.items()}
            with_scan = {
                model: claim.value(rival.true.macs_with_scan, count.macs_with_scan) for model, count in ours.items()
            }
            yield Verdict(claim, from_tables, true, with_scan)


def _count(row: Row, table: Table) -> CountedRow:
    given = table.input
    network = on_meta(lambda: row.build(given))
    true = true_count(network, given.shape)
    paper = paper_count(network, (given.batch, *given.shape)) if row.is_paper_network else None
    return CountedRow(row, paper, true)

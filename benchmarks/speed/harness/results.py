"""Rows and result files: one JSON file for each module, in benchmarks/results by default."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from nnunetv2_lightm.files import write_text
from nnunetv2_lightm.measure.timing import Spread

from .goals import GOALS
from .machine import ROOT, machine, speed_variables
from .timing import QUICK, Effort

RESULTS = ROOT / "benchmarks" / "results"
RIVAL_PACKAGES = ("dynamic-network-architectures", "mambapy")
SPEED, SHARE = "speed", "share"


@dataclass(frozen=True)
class Row:
    """Ours compared with a baseline: a rival, or ourselves in another setting.

    Attributes:
        name: Key in ``GOALS``, if the row has a goal.
        work: What is done, on what.
        ours_name: What ran, with backend.
        baseline_name: What it is compared with, and its version.
        unit: Unit of the spreads, "s" or "MiB".
        kind: "speed": the ratio is the baseline divided by ours, higher is better. "share": ours divided by the
            baseline, lower is better.
        ours: What was measured; None if nothing was, for the reason in ``not_measured``.
        baseline: The same for the baseline.
        threads: PyTorch's.
        not_measured: Why there are no numbers.
    """

    name: str
    work: str
    ours_name: str
    baseline_name: str
    unit: str = "s"
    kind: str = SPEED
    ours: Spread | None = None
    baseline: Spread | None = None
    threads: int = 0
    not_measured: str | None = None

    def measured(self, ours: Spread | None, baseline: Spread | None, missing: str | None = None) -> Row:
        """The row with its numbers, or with the reason why it has none."""
        reason = self.not_measured or (missing if ours is None or baseline is None else None)
        return replace(self, ours=ours, baseline=baseline, not_measured=reason)

    @property
    def ratio(self) -> float | None:
        if self.ours is None or self.baseline is None:
            return None
        if self.kind == SPEED:
            return self.baseline.median / self.ours.median
        return self.ours.median / self.baseline.median

    @property
    def met(self) -> bool | None:
        """None: no goal, or not measured."""
        goal, ratio = GOALS.get(self.name), self.ratio
        return None if goal is None or ratio is None else goal.met_by(ratio)

    def to_json(self) -> dict:
        goal = GOALS.get(self.name)
        return {**asdict(self), "ratio": self.ratio, "goal": str(goal) if goal else None, "met": self.met}

    @classmethod
    def from_json(cls, data: dict) -> Row:
        spreads = {key: Spread(**data[key]) if data[key] else None for key in ("ours", "baseline")}
        known = {key: data[key] for key in cls.__dataclass_fields__ if key not in spreads}
        return cls(**known, **spreads)


@dataclass
class Result:
    """The results of one module.

    Attributes:
        group: The module's name, and the file's.
        effort: How long it measured.
        threads: PyTorch's.
        rows: Comparisons with a baseline.
        tables: Further tables by title, each a list of records.
        facts: Further entries of the file.
        started: Seconds since the epoch.
    """

    group: str
    effort: Effort
    threads: int
    rows: list[Row] = field(default_factory=list)
    tables: dict[str, list[dict]] = field(default_factory=dict)
    facts: dict[str, object] = field(default_factory=dict)
    started: float = field(default_factory=time.time)

    def add(self, row: Row) -> None:
        """Keep a row and print it."""
        self.rows.append(row)
        ratio = f"{row.ratio:.3g}x" if row.ratio is not None else f"not measured: {row.not_measured}"
        goal = GOALS.get(row.name)
        verdict = f", goal {goal}: {'met' if row.met else 'not met'}" if row.met is not None else ""
        print(f"  {row.name}: {ratio}{verdict}", flush=True)

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        data = {
            "group": self.group,
            "command": f"python -m benchmarks.speed.{Path(sys.argv[0]).stem}",
            "quick": self.effort.quick,
            "date": time.strftime("%Y-%m-%d", time.gmtime(self.started)),
            "seconds": round(time.time() - self.started),
            "machine": machine(*RIVAL_PACKAGES),
            "threads": self.threads,
            "environment": speed_variables(),
            **self.facts,
            "rows": [row.to_json() for row in self.rows],
            "tables": self.tables,
        }
        path = folder / f"{self.group}.json"
        write_text(path, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        print(f"  -> {path}", flush=True)
        return path


def argument_parser(description: str) -> argparse.ArgumentParser:
    """The options that all modules share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny problems, only to check that it works; needs --out")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results (default: %(default)s)")
    return parser


def parse(parser: argparse.ArgumentParser, argv: list[str] | None) -> tuple[argparse.Namespace, Effort]:
    """Arguments and effort. A quick run must not overwrite the real results: it needs another folder."""
    arguments = parser.parse_args(argv)
    if arguments.quick and arguments.out.resolve() == RESULTS:
        parser.error("--quick gives no real numbers: name another folder for them with --out")
    return arguments, QUICK if arguments.quick else Effort()

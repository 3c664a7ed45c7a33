"""RESULTS.md and the plot from the result files that are there; prints the table of goals.

python -m benchmarks.speed.report
python -m benchmarks.speed.report --out quick
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from nnunetv2_lightm.files import write_text

from .harness.plot import draw
from .harness.report_text import goals_table, results_markdown
from .harness.results import Row, argument_parser

# Each a result file and, but for one, the name of the module that writes it.
GROUPS = (
    "scan",
    "networks",
    "resenc",
    "recipe",
    "transient_memory",
    "tuned_malloc",
    "profile",
    "gpu_memory",
    "gpu_model",
)
PLOT = "benchmark.png"


def main(argv: list[str] | None = None) -> int:
    arguments = argument_parser(__doc__).parse_args(argv)
    groups = load(arguments.out)
    if not groups:
        print(f"{arguments.out}: no result file; run `make bench`, or one of the modules in {Path(__file__).parent}")
        return 1
    rows = [Row.from_json(row) for group in groups for row in group["rows"]]
    draw(rows, arguments.out / PLOT)
    write_text(arguments.out / "RESULTS.md", results_markdown(groups, PLOT))
    print(goals_table(rows))
    print(f"\nEverything: {arguments.out / 'RESULTS.md'}")
    return 0


def load(folder: Path) -> list[dict]:
    """The result files in a folder, in the order of ``GROUPS``."""
    files = [folder / f"{group}.json" for group in GROUPS]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]


if __name__ == "__main__":
    sys.exit(main())

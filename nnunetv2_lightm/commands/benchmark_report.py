"""``nnUNetv2_lightm benchmark-report``: comparisons of trainers as report.md and a self-contained report.html."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from ..escaping import escape_terminal


def main(argv: list[str]) -> int:
    """Run the command. Returns its exit code: 0 done, 1 if the results cannot be read."""
    arguments = _parser().parse_args(argv)
    # After the arguments: `--help` loads neither torch nor scipy.
    from ..benchmark.report.document import pictured_folders, write_report
    from ..benchmark.results import ResultsError, load_results
    from ..evaluation.scores import EvaluationError

    try:
        results = [load_results(path) for path in arguments.results]
        if arguments.no_pictures:
            results = [replace(result, not_pictured="left out by --no-pictures") for result in results]
        write_report(results, arguments.output, arguments.title or results[0].title)
    except (ResultsError, EvaluationError, OSError) as error:
        print(f"benchmark-report: {escape_terminal(error)}", file=sys.stderr)
        return 1
    if shown := pictured_folders(results):
        folders = escape_terminal(", ".join(map(str, shown)))
        print(f"benchmark-report: shows images of {folders}; --no-pictures leaves them out", file=sys.stderr)
    print(escape_terminal(f"{arguments.output / 'report.md'}\n{arguments.output / 'report.html'}"))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_lightm benchmark-report",
        description="Write report.md and a self-contained report.html about one or several comparisons.",
    )
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULTS.json", help="written by `benchmark`")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="output folder")
    parser.add_argument("--no-pictures", action="store_true", help="leave images out, e.g. because they show patients")
    parser.add_argument("--title", help="title of the report (default: that of the first comparison)")
    return parser

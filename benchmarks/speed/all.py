"""All benchmarks, one after the other, each in a process of its own; then the report.

python -m benchmarks.speed.all
python -m benchmarks.speed.all --quick --out quick
"""

from __future__ import annotations

import subprocess
import sys
import time

from .harness.machine import ROOT
from .harness.results import argument_parser, parse
from .report import GROUPS

# `profile` is a module of Python's.
SCRIPTS = tuple("stage_profile" if group == "profile" else group for group in GROUPS)


def main(argv: list[str] | None = None) -> int:
    arguments, _ = parse(argument_parser(__doc__), argv)
    options = ["--out", str(arguments.out.absolute()), *(["--quick"] if arguments.quick else [])]
    begin = time.perf_counter()
    for script in SCRIPTS:
        print(f"{script} ({time.perf_counter() - begin:.0f} s so far)", flush=True)
        code = run(script, options)
        if code:
            print(f"{script} ended with exit code {code}; nothing is reported")
            return code
    return run("report", ["--out", str(arguments.out.absolute())])


def run(script: str, options: list[str]) -> int:
    return subprocess.run([sys.executable, "-m", f"{__package__}.{script}", *options], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

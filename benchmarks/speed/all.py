"""All benchmarks, one after the other, each in a process of its own; then the report.

python benchmarks/speed/all.py
python benchmarks/speed/all.py --quick --out quick
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from harness.results import argument_parser, parse

SCRIPTS = (
    "scan.py",
    "networks.py",
    "memory.py",
    "tuned_malloc.py",
    "stage_profile.py",
    "gpu_memory.py",
    "gpu_model.py",
)


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
    return run("report.py", ["--out", str(arguments.out.absolute())])


def run(script: str, options: list[str]) -> int:
    return subprocess.run([sys.executable, str(Path(__file__).with_name(script)), *options], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

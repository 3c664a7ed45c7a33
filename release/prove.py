"""Runs the compiled libraries of all platforms that can be run here: natively, in QEMU, in Wine.

    python -m release.prove [TAG ...]

Each repeats the recorded calls of tests/native/cases.py through tests/native/harness.cpp. Prints one line for each
platform; the exit code is 1 if a library computes something else, 0 also where an emulator is missing, which is said.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from native_build import ROOT

from .libraries import FOLDER, build, zig
from .platforms import PLATFORMS, Platform, platform

HARNESS = ROOT / "tests" / "native" / "harness.cpp"
CASES = ROOT / "tests" / "native" / "cases.py"
TIMEOUT_SECONDS = 20 * 60


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tags = [known.tag for known in PLATFORMS]
    parser.add_argument("tags", nargs="*", metavar="TAG", help=f"platforms; default: all, {', '.join(tags)}")
    targets = [platform(tag) for tag in parser.parse_args(argv).tags or tags]
    cases = FOLDER / "cases.bin"
    cases.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, CASES, cases], check=True, cwd=ROOT)
    results = [(target, *prove(target, cases)) for target in targets]
    for target, _, said in results:
        print(f"{target.tag}: {said}")
    return 0 if all(passed for _, passed, _ in results) else 1


def prove(target: Platform, cases: Path) -> tuple[bool, str]:
    """Whether nothing failed, and what happened."""
    library = build(target)
    reason = why_not(target)
    if reason:
        return True, f"compiled and linked; not run: {reason}"
    harness = FOLDER / target.tag / ("harness.exe" if target.system == "win32" else "harness")
    zig(target, "-std=c++17", "-O2", "-s", HARNESS, *(["-ldl"] if target.system == "linux" else []), "-o", harness)
    command = [*target.emulator, *(os.path.relpath(path, ROOT) for path in (harness, library, cases))]
    quiet = os.environ | {"WINEDEBUG": "-all", "WINEPREFIX": str(FOLDER / "wine")}
    finished = subprocess.run(
        command, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS
    )
    lines = [line for line in finished.stdout.splitlines() if line.strip()]
    by = f"by {target.emulator[0]}" if target.emulator else "natively"
    if finished.returncode:
        return False, f"FAILED, run {by}:\n" + "\n".join([*lines[-20:], *finished.stderr.splitlines()[-5:]])
    return True, f"{lines[-1]}, run {by} ({lines[-2]})"


def why_not(target: Platform) -> str | None:
    """Why its programs cannot be run here; None: they can."""
    if target.emulator is None:
        return "there is no emulator of it"
    if target.emulator and not shutil.which(target.emulator[0]):
        return f"{target.emulator[0]} is not installed"
    folder = next((value for flag, value in zip(target.emulator, target.emulator[1:]) if flag == "-L"), None)
    if folder and not Path(folder).is_dir():
        return f"{folder} is missing, its C library"
    return None


if __name__ == "__main__":
    sys.exit(main())

"""Runs the compiled libraries of all platforms that can run here: on this system, in QEMU, in Wine.

    python -m release.prove [TAG ...]

Each library of nnunetv2-lightm repeats the recorded calls of tests/native/cases.py through tests/native/harness.cpp;
each of lightm-runtime is compared, by tests/native/engine_harness.cpp, with that for this machine. Prints a line for
each; the exit code is 1 if a library computes something else. A missing emulator is reported and is not an error.
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
from .products import ENGINE, PACKAGE, RUNTIME, Product

NATIVE = ROOT / "tests" / "native"
CASES, COMPUTED = FOLDER / "cases.bin", FOLDER / "engine.bin"
TIMEOUT_SECONDS = 20 * 60


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tags = [known.tag for known in PLATFORMS]
    parser.add_argument("tags", nargs="*", metavar="TAG", help=f"platforms; default: all, {', '.join(tags)}")
    targets = [platform(tag) for tag in parser.parse_args(argv).tags or tags]
    record()
    results = [(target, product, *prove(target, product)) for target in targets for product in (PACKAGE, RUNTIME)]
    for target, product, _, said in results:
        print(f"{target.tag}, {product.distribution}: {said}")
    return 0 if all(passed for *_, passed, _ in results) else 1


def record() -> None:
    """Write what the libraries must compute.

    Raises: subprocess.CalledProcessError: if the installed library computes something else than PyTorch.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, NATIVE / "cases.py", CASES], check=True, cwd=ROOT)
    COMPUTED.unlink(missing_ok=True)
    for target in PLATFORMS:
        if target.is_this_machine:
            run(target, harness(target, RUNTIME), build(target, RUNTIME), "write", COMPUTED).check_returncode()


def prove(target: Platform, product: Product) -> tuple[bool, str]:
    """Whether nothing failed, and what happened."""
    library = build(target, product)
    reason = why_not(target, product)
    if reason:
        return True, f"compiled and linked; not run: {reason}"
    expected = (CASES,) if product is PACKAGE else ("compare", COMPUTED)
    finished = run(target, harness(target, product), library, *expected)
    lines = [line for line in finished.stdout.splitlines() if line.strip()]
    by = "run as it is" if target.is_this_machine else f"run by {target.emulator[0]}"
    if finished.returncode:
        return False, f"FAILED, {by}:\n" + "\n".join([*lines[-20:], *finished.stderr.splitlines()[-5:]])
    return True, ", ".join([lines[-1], by, *lines[:-1]])


def harness(target: Platform, product: Product) -> Path:
    """The program that loads the library and calls it, compiled."""
    name = "harness" if product is PACKAGE else "engine_harness"
    program = FOLDER / target.tag / (f"{name}.exe" if target.system == "win32" else name)
    program.parent.mkdir(parents=True, exist_ok=True)
    options = ("-std=c++17", "-O2", "-s", f"-I{ENGINE}", *(["-ldl"] if target.system == "linux" else []))
    zig(target, *options, NATIVE / f"{name}.cpp", "-o", program)
    return program


def run(target: Platform, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program of the platform, by its emulator if need be; paths are relative, as Wine has other roots."""
    words = [os.path.relpath(word, ROOT) if isinstance(word, Path) else word for word in command]
    if target.is_this_machine:
        words[0] = str(command[0])
    else:
        words = [*target.emulator, *words]
    quiet = os.environ | {"WINEDEBUG": "-all", "WINEPREFIX": str(FOLDER / "wine")}
    return subprocess.run(
        words, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS
    )


def why_not(target: Platform, product: Product) -> str | None:
    """Why its programs cannot be run here; None: they can."""
    if product is RUNTIME and not COMPUTED.exists():
        return "there is nothing to compare with, as no wheel is for this machine"
    if target.is_this_machine:
        return None
    if not target.emulator:
        return "there is no emulator of it"
    if not shutil.which(target.emulator[0]):
        return f"{target.emulator[0]} is not installed"
    folder = next((value for flag, value in zip(target.emulator, target.emulator[1:]) if flag == "-L"), None)
    if folder and not Path(folder).is_dir():
        return f"{folder} is missing, its C library"
    return None


if __name__ == "__main__":
    sys.exit(main())

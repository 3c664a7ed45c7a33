"""Compiles both libraries for every platform with Zig, which is Clang with the C libraries of all of them.

    python -m release.libraries [TAG ...]

Object files are kept in build/zig/ and used again while their sources, headers and flags stay the same.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import native_build
from native_build import ROOT

from .inspect_library import faults
from .platforms import PLATFORMS, Platform, platform
from .products import PRODUCTS, Product

FOLDER = ROOT / "build" / "zig"
# Export only the C interface: the C++ library inside must not clash with another one in the process.
VERSION_SCRIPT = "{{ global: {}*; local: *; }};\n"


def main(argv: list[str] | None = None) -> int:
    """Compile, and print each library's path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tags = [known.tag for known in PLATFORMS]
    parser.add_argument("tags", nargs="*", metavar="TAG", help=f"platforms; default: all, {', '.join(tags)}")
    for tag in parser.parse_args(argv).tags or tags:
        for product in PRODUCTS:
            print(build(platform(tag), product), flush=True)
    return 0


def build(target: Platform, product: Product) -> Path:
    """The library of a product for a platform.

    Raises:
        subprocess.CalledProcessError: if it does not compile; the compiler has printed why.
        ValueError: if it needs more than the platform brings.
    """
    generated = native_build.write_layout(FOLDER / "include")[-1]
    folders = [*map(str, product.headers), generated]
    objects = native_build.compile_each(lambda source: compile_source(target, source, folders), product.sources)
    output = FOLDER / target.tag / product.library_name(target.system)
    output.parent.mkdir(parents=True, exist_ok=True)
    # -O3 here chooses the optimised build of the C++ library that is linked in.
    zig(target, "-shared", "-s", "-O3", *objects, *link_flags(target, product), "-o", output)
    wrong = faults(output, target, product.exported)
    if wrong:
        output.unlink()
        raise ValueError("; ".join(wrong))
    return output


def compile_source(target: Platform, source: Path, folders: list[str]) -> Path:
    """The object file of a source, compiled unless it is there."""
    flags = native_build.flags(source, target.x86_64)
    state = hashlib.sha256(repr((target.target, flags, zig_version())).encode())
    for path in sorted(with_headers(source, folders)):
        state.update(path.read_bytes())
    compiled = FOLDER / "objects" / f"{target.tag}-{source.stem}-{state.hexdigest()[:16]}.o"
    if not compiled.exists():
        compiled.parent.mkdir(parents=True, exist_ok=True)
        partial = compiled.with_suffix(".partial.o")
        zig(target, "-c", *flags, *(f"-I{folder}" for folder in folders), source, "-o", partial)
        partial.replace(compiled)
    return compiled


def with_headers(source: Path, folders: list[str]) -> set[Path]:
    """The file and the project's headers that it includes, also through others."""
    seen, new = set(), {source}
    while new:
        seen |= new
        names = {name for path in new for name in re.findall(r'#include "(.+)"', path.read_text(encoding="utf-8"))}
        new = {path for name in names for path in (Path(folder, name) for folder in folders) if path.exists()} - seen
    return seen


def link_flags(target: Platform, product: Product) -> list[str]:
    """Zig links its C++ library into the result, wherever it can."""
    if target.system == "linux":
        script = FOLDER / f"{product.distribution}.map"
        script.write_text(VERSION_SCRIPT.format(product.exported), encoding="utf-8")
        return [f"-Wl,--version-script={script}", "-Wl,--build-id=none", "-lpthread"]
    if target.system == "darwin":
        return [f"-Wl,-install_name,@rpath/{product.library_name(target.system)}"]
    return []


def zig(target: Platform, *arguments: str | Path) -> None:
    """Run Zig's C++ compiler for a platform."""
    command = [sys.executable, "-m", "ziglang", "c++", "-target", target.target, *arguments]
    subprocess.run(list(map(str, command)), check=True)


def zig_version() -> str:
    """Part of what an object file depends on."""
    return version("ziglang")


if __name__ == "__main__":
    sys.exit(main())

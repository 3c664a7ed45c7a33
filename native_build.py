"""How the compiled library is built from ``nnunetv2_lightm/ops/csrc``: sources, flags and the generated header.

setup.py compiles with the system's compiler for this machine; release/libraries.py with Zig for all platforms. Needs
nothing but the standard library.
"""

from __future__ import annotations

import os
import runpy
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

Source = TypeVar("Source")
Compiled = TypeVar("Compiled")

# Where it is 1, as in CI, sources that do not compile are an error.
REQUIRED = os.environ.get("NNUNETV2_LIGHTM_REQUIRE_COMPILED") == "1"
ROOT = Path(__file__).resolve().parent
CSRC = Path("nnunetv2_lightm", "ops", "csrc")
INTERFACE = ROOT / "nnunetv2_lightm" / "ops" / "backends" / "native_interface.py"
SOURCES = sorted(path.relative_to(ROOT) for path in (ROOT / CSRC).glob("*.cpp"))
HEADERS = sorted(path.relative_to(ROOT) for path in (ROOT / CSRC).glob("*.hpp"))
# Not -ffast-math: it breaks NaN, and linking with it changes the floating-point mode of the whole process.
COMPILE_FLAGS = [
    "-std=c++17",
    "-O3",
    "-g0",
    "-fvisibility=hidden",
    "-Wno-psabi",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
]
# Code for these instruction sets is chosen at run time, if the processor has them.
INSTRUCTION_SET_FLAGS = {
    "kernels_avx512.cpp": ["-mavx512f", "-mavx512dq", "-mfma", "-mprefer-vector-width=512"],
    "kernels_avx2.cpp": ["-mavx2", "-mfma"],
}


def flags(source: str | Path, x86_64: bool) -> list[str]:
    """The compiler's flags for a source file."""
    return COMPILE_FLAGS + (INSTRUCTION_SET_FLAGS.get(Path(source).name, []) if x86_64 else [])


def library_name(platform: str, declared_in: Path = INTERFACE) -> str:
    """The library's file for a value of ``sys.platform``, as the Python file that loads it declares it."""
    names = runpy.run_path(str(declared_in))["FILE_NAMES"]
    return names.get(platform, names["linux"])


def compile_each(compile_one: Callable[[Source], Compiled], sources: Iterable[Source]) -> list[Compiled]:
    """Compile sources, as many at a time as there are processors.

    Returns: What ``compile_one`` returned, in the sources' order; what it raised first is raised.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compile_one, sources))


def remove_earlier(build_base: str | Path, build_lib: str | Path) -> None:
    """Remove what an earlier build collected, unless it lies in a place of the user's choice.

    All that lies there is packed, modules that have gone since too: pip builds in the checkout, and setuptools only
    adds.
    """
    folder = Path(build_lib).resolve()
    if folder.is_dir() and Path(build_base).resolve() in folder.parents:
        shutil.rmtree(folder)


def write_layout(folder: str | Path) -> list[str]:
    """Write the header with which the compiler checks the structures against Python's.

    Returns: The folders in which to look for headers.
    """
    target = Path(folder, "native_layout.hpp")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(runpy.run_path(str(INTERFACE))["layout_assertions"](), encoding="utf-8")
    return [str(ROOT / CSRC), str(target.parent)]

"""The engine as WebAssembly: ``runtime/src`` and the kernels, compiled once by Zig, which comes from PyPI.

There are two modules of the same sources. One multiplies and adds in one instruction, which takes some 20 % off a
pass; not every browser has it (Safari does not), so that the page carries both and takes what the browser accepts.

The sources are part of this package, not the compiled module: a checkout, a source distribution and a wheel then
compile what they hold, and no build of the package needs another compiler.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from ...extras import require_libraries
from ...files import whole_file
from ...ops.backends.native_interface import layout_assertions
from ..errors import ExportError

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parent.parent
KERNELS = PACKAGE / "ops" / "csrc"
# In an installed package, or in a checkout.
ENGINE = next(path for path in (HERE / "engine_sources", PACKAGE.parent / "runtime" / "src") if path.is_dir())
# What a page does not call: gradients, other instruction sets, and how the package recognises its own library.
LEFT_OUT = re.compile(r"(api|interface|kernels_\w+|rvm_backward)\.cpp")
USER = "`nnUNetv2_lightm export --web`"
# By the element of the page that holds it, what a module has beyond the vectors that every browser has had since 2023.
MODULES = {"engine": (), "engine-fused": ("-mrelaxed-simd",)}
# No threads and no exceptions: WebAssembly from disk has neither.
FLAGS = (
    "-target",
    "wasm32-wasi",
    "-mexec-model=reactor",
    "-msimd128",
    "-DNNUNETV2_LIGHTM_SINGLE_THREAD",
    "-std=c++17",
    "-O3",
    "-g0",
    "-s",
    "-fvisibility=hidden",
    "-fno-exceptions",
    "-fno-rtti",
    "-Wno-psabi",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-Wl,--export-dynamic",
)


def web_engines(say: Callable[[str], None] = print) -> dict[str, bytes]:
    """The WebAssembly modules; compiled unless the user's cache holds them for these very sources.

    Args:
        say: Told that compiling takes a while.

    Returns:
        The content of each of ``MODULES``, by its name.

    Raises:
        ImportError: if ziglang is not installed.
        ExportError: if the sources do not compile, or the cache cannot be written.
    """
    require_libraries(["ziglang"], USER)
    files = [path for folder in (ENGINE, KERNELS) for path in sorted(folder.glob("*.cpp"))]
    sources = [path for path in files if not LEFT_OUT.fullmatch(path.name)]
    cached = {name: _cache() / f"{name}-{_state(sources, name)}.wasm" for name in MODULES}
    if not all(path.is_file() for path in cached.values()):
        say(f"Compiling the engine for browsers, once: two or three minutes. It is kept in {_cache()}")
    try:
        _cache().mkdir(parents=True, exist_ok=True)
        for name, path in cached.items():
            if not path.is_file():
                with whole_file(path) as partial:
                    _compile(sources, MODULES[name], partial)
    except OSError as error:
        raise ExportError(
            f"the compiled engine cannot be kept: {error}. Name another folder: export XDG_CACHE_HOME=FOLDER"
        ) from error
    return {name: path.read_bytes() for name, path in cached.items()}


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nnunetv2_lightm"


def _state(sources: list[Path], name: str) -> str:
    """Changes with everything that the module depends on."""
    headers = [path for folder in (ENGINE, KERNELS) for path in sorted(folder.glob("*.h*"))]
    state = hashlib.sha256(repr((FLAGS, MODULES[name], version("ziglang"))).encode())
    for path in (*sources, *headers):
        state.update(path.name.encode() + b"\0" + path.read_bytes())
    return state.hexdigest()[:16]


def _compile(sources: list[Path], more: tuple[str, ...], out: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "native_layout.hpp").write_text(layout_assertions(), encoding="utf-8")
        includes = [f"-I{path}" for path in (ENGINE, KERNELS, folder)]
        module = folder / "engine.wasm"
        command = [sys.executable, "-m", "ziglang", "c++", *FLAGS, *more, *includes]
        command += [*map(str, sources), "-o", str(module)]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        if finished.returncode:
            last = "\n".join(finished.stderr.splitlines()[-20:])
            raise ExportError(f"the engine does not compile with ziglang {version('ziglang')}:\n{last}")
        out.write_bytes(module.read_bytes())

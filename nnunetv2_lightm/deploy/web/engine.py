"""The engine as WebAssembly: ``runtime/src`` and the kernels, compiled once by Zig, which comes from PyPI.

The sources are part of this package, not the compiled module: a checkout, a source distribution and a wheel then
compile what they hold, and no build of the package needs another compiler.
"""

from __future__ import annotations

import hashlib
import os
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
LEFT_OUT = "interface.cpp"  # by which the package recognises its own library
USER = "`nnUNetv2_lightm export --web`"
# Vectors as every browser has had them since 2023. No threads and no exceptions: WebAssembly from disk has neither.
FLAGS = (
    *("-target", "wasm32-wasi", "-mexec-model=reactor", "-msimd128", "-DNNUNETV2_LIGHTM_SINGLE_THREAD"),
    *("-std=c++17", "-O3", "-g0", "-s", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti", "-Wno-psabi"),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-Wl,--export-dynamic"),
)


def web_engine(say: Callable[[str], None] = print) -> bytes:
    """The WebAssembly module; compiled unless the user's cache holds it for these very sources.

    Args:
        say: Told that compiling takes a while.

    Raises:
        ImportError: if ziglang is not installed.
        ExportError: if the sources do not compile, or the cache cannot be written.
    """
    require_libraries(["ziglang"], USER)
    sources = [path for folder in (ENGINE, KERNELS) for path in sorted(folder.glob("*.cpp")) if path.name != LEFT_OUT]
    cached = _cache() / f"engine-{_state(sources)}.wasm"
    if not cached.is_file():
        say(f"Compiling the engine for browsers, once: a minute or two. It is kept as {cached}")
        try:
            cached.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(cached) as partial:
                _compile(sources, partial)
        except OSError as error:
            raise ExportError(
                f"the compiled engine cannot be kept: {error}. Name another folder: export XDG_CACHE_HOME=FOLDER"
            ) from error
    return cached.read_bytes()


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nnunetv2_lightm"


def _state(sources: list[Path]) -> str:
    """Changes with everything that the module depends on."""
    headers = [path for folder in (ENGINE, KERNELS) for path in sorted(folder.glob("*.h*"))]
    state = hashlib.sha256(repr((FLAGS, version("ziglang"))).encode())
    for path in (*sources, *headers):
        state.update(path.name.encode() + b"\0" + path.read_bytes())
    return state.hexdigest()[:16]


def _compile(sources: list[Path], out: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "native_layout.hpp").write_text(layout_assertions(), encoding="utf-8")
        includes = [f"-I{path}" for path in (ENGINE, KERNELS, folder)]
        module = folder / "engine.wasm"
        command = [sys.executable, "-m", "ziglang", "c++", *FLAGS, *includes, *map(str, sources), "-o", str(module)]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        if finished.returncode:
            last = "\n".join(finished.stderr.splitlines()[-20:])
            raise ExportError(f"the engine does not compile with ziglang {version('ziglang')}:\n{last}")
        out.write_bytes(module.read_bytes())

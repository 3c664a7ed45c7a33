"""The distributions that are released: each is Python with one compiled library, which knows nothing of Python."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import native_build
from native_build import CSRC, ROOT, SOURCES


@dataclass(frozen=True)
class Product:
    """Attributes:
    distribution: Its name.
    folder: Folder of its pyproject.toml.
    package: The library's folder in a wheel.
    declared_in: The Python file with the names of the library's file.
    sources: The library's sources.
    headers: Folders of its headers.
    exported: Prefix of its functions' names.
    runs_without: Whether the package is usable without the library, so that one wheel serves all other platforms.
    """

    distribution: str
    folder: Path
    package: str
    declared_in: Path
    sources: tuple[Path, ...]
    headers: tuple[Path, ...]
    exported: str
    runs_without: bool

    @property
    def file_stem(self) -> str:
        """Prefix of its files in dist/."""
        return self.distribution.replace("-", "_") + "-"

    def library_name(self, system: str) -> str:
        """The library's file for a value of ``sys.platform``."""
        return native_build.library_name(system, self.declared_in)


PACKAGE = Product(
    distribution="nnunetv2-lightm",
    folder=ROOT,
    package="nnunetv2_lightm/ops",
    declared_in=native_build.INTERFACE,
    sources=tuple(ROOT / source for source in SOURCES),
    headers=(ROOT / CSRC,),
    exported="nnunetv2_lightm_",
    runs_without=True,
)
ENGINE = ROOT / "runtime" / "src"
RUNTIME = Product(
    distribution="lightm-runtime",
    folder=ROOT / "runtime",
    package="lightm_runtime",
    declared_in=ROOT / "runtime" / "lightm_runtime" / "engine_file.py",
    # As in runtime/setup.py: interface.cpp is how nnunetv2_lightm recognises its own library.
    sources=(*sorted(ENGINE.glob("*.cpp")), *(ROOT / source for source in SOURCES if source.name != "interface.cpp")),
    headers=(ENGINE, ROOT / CSRC),
    exported="lightm_",
    runs_without=False,
)
PRODUCTS = (PACKAGE, RUNTIME)

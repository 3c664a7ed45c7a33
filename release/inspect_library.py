"""What a compiled library needs from the system, and which symbols it exports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import lief

from .platforms import SYSTEM_LIBRARIES, UNIVERSAL_C_RUNTIME, Platform


@dataclass(frozen=True)
class Library:
    """Attributes:
    imports: Names of the libraries that it is linked to.
    exports: Names of its exported symbols.
    """

    imports: frozenset[str]
    exports: frozenset[str]


def read(path: Path) -> Library:
    """An ELF, Mach-O or PE file."""
    lief.logging.disable()  # it complains about sections that a stripped library lacks
    binary = lief.parse(str(path))
    if isinstance(binary, lief.PE.Binary):
        exports = [entry.name for entry in binary.get_export().entries]
        return Library(frozenset(entry.name for entry in binary.imports), frozenset(exports))
    if isinstance(binary, lief.MachO.Binary):
        own = binary.get(lief.MachO.LoadCommand.TYPE.ID_DYLIB).name
        imports = {library.name for library in binary.libraries} - {own}
        return Library(frozenset(imports), frozenset(symbol.name[1:] for symbol in binary.exported_symbols))
    exports = [symbol.name for symbol in binary.exported_symbols]
    return Library(frozenset(binary.libraries), frozenset(exports))


def faults(path: Path, target: Platform, exported: str) -> list[str]:
    """Why the library cannot be shipped for the platform; empty: it can.

    Args:
        path: The library.
        target: The platform.
        exported: Prefix of our functions' names.
    """
    library = read(path)
    foreign = {
        name
        for name in library.imports - SYSTEM_LIBRARIES[target.system]
        if not (target.system == "win32" and name.startswith(UNIVERSAL_C_RUNTIME))
    }
    reasons = [
        f"{path.name} for {target.tag} needs {name}, which the system does not bring" for name in sorted(foreign)
    ]
    ours = {name for name in library.exports if name.startswith(exported)}
    if not ours:
        reasons.append(f"{path.name} for {target.tag} exports no function of ours")
    # Elsewhere a symbol belongs to its library, and others of the same name cannot take its place.
    if target.system == "linux" and library.exports != ours:
        reasons.append(f"{path.name} for {target.tag} exports {', '.join(sorted(library.exports - ours)[:5])}")
    return reasons

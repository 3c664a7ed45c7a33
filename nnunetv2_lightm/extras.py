"""Optional libraries: imported on use; where one is missing, the error gives the command that installs it.

Their versions are in pyproject.toml, in one of the extras.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec
from types import ModuleType

from packaging.requirements import Requirement

from .installation import DISTRIBUTION, PIP


def import_extra(module: str, user: str) -> ModuleType:
    """Import a module of an optional library.

    Args:
        module: Its dotted name, e.g. ``monai.networks.nets``.
        user: What needs it, for the message.

    Raises: ImportError: with the command that installs the library, if it is missing or broken.
    """
    library = module.split(".")[0]
    try:
        return import_module(module)
    except ImportError as error:
        state = "is not installed" if find_spec(library) is None else f"is installed but cannot be imported ({error})"
        distribution = library.replace("_", "-")
        message = f"{user} needs {distribution}, which {state}: {install_command(distribution)}"
        raise ImportError(message, name=error.name) from error


def require_libraries(libraries: Sequence[str], user: str) -> None:
    """Refuse to begin while one of several optional libraries is missing, with one command for all that are.

    Raises: ImportError: naming them.
    """
    if missing := [library for library in libraries if find_spec(library) is None]:
        are = "are" if len(missing) > 1 else "is"
        raise ImportError(f"{user} needs {', '.join(missing)}, which {are} not installed: {install_command(*missing)}")


def install_command(*distributions: str) -> str:
    """The command that installs libraries, in versions that this package supports."""
    try:
        requirements = [Requirement(line) for line in requires(DISTRIBUTION) or []]
    except PackageNotFoundError:  # imported from a checkout that was not installed
        requirements = []
    specifiers = {needed.name: str(needed.specifier) for needed in reversed(requirements)}
    return " ".join([PIP, *(f'"{name}{specifiers.get(name, "")}"' for name in distributions)])

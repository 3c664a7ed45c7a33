"""Runs at every start of Python: tells nnU-Net, through its own environment variable, where our trainers are.

Standard library only, and of that only what the interpreter has loaded already.
"""

import os
import sys

from . import shim_directory

EXT_TRAINER_VARIABLE = "nnUNet_extTrainer"
SWITCH_VARIABLE = "NNUNETV2_LIGHTM_AUTOLOAD"

# True once announce() of this process has added the directory; False where the variable held it already.
announced = False


def announce() -> None:
    """Append the shim directory to ``nnUNet_extTrainer``.

    Directories that the variable already holds stay and come first. Ours may be one of them: a virtual environment's
    start-up files are read twice, and child processes inherit the variable. ``NNUNETV2_LIGHTM_AUTOLOAD=0`` switches
    this off. A directory with a ``:`` in its path is left out, because nnU-Net would split it there.

    A script that sets ``os.environ["nnUNet_extTrainer"]`` later drops the directory again. It is put back whenever a
    module of nnunetv2 is imported; nnU-Net's first look-up imports most of them before it reads the variable.
    """
    global announced
    if switched_off():
        return
    directory = shim_directory()
    if os.pathsep in directory:
        return
    value = os.environ.get(EXT_TRAINER_VARIABLE, "")
    is_there = _same(directory) in map(_same, value.split(os.pathsep))
    # Only after it has worked once: a truncated copy of this file must not fail at every import of nnunetv2.
    if AnnounceAgain not in sys.meta_path:
        sys.meta_path.insert(0, AnnounceAgain)
    if is_there:
        return
    os.environ[EXT_TRAINER_VARIABLE] = f"{value}{os.pathsep}{directory}" if value else directory
    announced = True


class AnnounceAgain:
    """A module finder that finds nothing; being asked is its use."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        """Called for each import of a module that is not loaded yet."""
        if name.startswith("nnunetv2."):
            announce()


def switched_off() -> bool:
    """Whether the user has set the kill switch."""
    return os.environ.get(SWITCH_VARIABLE, "").strip().lower() in {"0", "false", "off", "no"}


def _same(path: str) -> str:
    return os.path.normcase(os.path.normpath(path.strip()))

"""Imports torch, nnunetv2 and the trainers in a fresh process, as ``nnUNetv2_train`` would.

:func:`examine` starts the process and collects what it wrote; :func:`_report` runs inside it. A library that crashes
the interpreter takes only that process down, and everything written before is kept.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from ...autoload import boot, shim_directory

TRAINER = "nnUNetTrainerLightMUNet"
LIBRARIES = ("torch", "torchvision", "timm", "nnunetv2")
TIMEOUT_SECONDS = 300
# Do not search the working directory for modules: nnUNetv2_train does not search it either.
_BOOTSTRAP = (
    "import sys; sys.path[:] = [entry for entry in sys.path if entry]; "
    "from nnunetv2_lightm.commands.doctor.fresh_process import _report; _report(sys.argv[1])"
)


def examine() -> dict[str, object]:
    """Run all steps in a fresh process with the user's environment.

    Returns:
        The outcome of each step, by its name: a library's name, "devices", "library", "backends", "lookup", "own tree"
        or "directories". A step that failed or was not reached holds {"error": text}.
    """
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder, "results")
        command = [sys.executable, "-c", _BOOTSTRAP, str(results)]
        died = None
        try:
            process = subprocess.run(
                command, env=_environment_before_autoload(), capture_output=True, timeout=TIMEOUT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            died = f"did not finish within {TIMEOUT_SECONDS} s"
        else:
            if process.returncode:
                last_lines = process.stderr.decode(errors="replace").strip().splitlines()[-1:]
                died = " ".join([f"ended with exit code {process.returncode}", *last_lines])
        lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    outcomes = dict(json.loads(line) for line in lines)
    if died is not None:
        culprit = next((name for name in _steps() if name not in outcomes), None)
        outcomes |= {
            name: {"error": f"the process {died}" if name == culprit else f"not tried, because of {culprit}"}
            for name in _steps()
            if name not in outcomes
        }
    return outcomes


def _environment_before_autoload() -> dict[str, str]:
    """The environment this process was started with, so that the new process has to find the shim directory too."""
    environment = dict(os.environ)
    if boot.announced:
        entries = environment[boot.EXT_TRAINER_VARIABLE].split(os.pathsep)
        entries = [entry for entry in entries if entry != shim_directory()]
        environment[boot.EXT_TRAINER_VARIABLE] = os.pathsep.join(entries)
        if not entries:
            del environment[boot.EXT_TRAINER_VARIABLE]
    return environment


def _steps() -> dict[str, Callable[[], object]]:
    steps = {name: lambda name=name: _library(name) for name in LIBRARIES}
    steps |= {"devices": _devices, "library": _native_library, "backends": _backends, "lookup": _lookup}
    return steps | {"own tree": _in_own_tree, "directories": _directories}


def _report(results: str) -> None:
    # Each line is on disk before the next step starts, which may crash the process.
    with Path(results).open("w", encoding="utf-8", buffering=1) as file:
        for name, step in _steps().items():
            file.write(json.dumps([name, _outcome(step)]) + "\n")


def _outcome(step: Callable[[], object], folder: str | None = None) -> object:
    """A step's result, or its error, with the line of the folder's own code that raised it."""
    try:
        return step()
    except (Exception, SystemExit) as error:
        place = "" if folder is None else _place(error, Path(folder).resolve())
        return {"error": f"{type(error).__name__}: {error}{place}"}


def _place(error: BaseException, folder: Path) -> str:
    if isinstance(error, SyntaxError):
        return f" ({error.filename}, line {error.lineno})"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if folder in Path(f.filename).resolve().parents]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""


def _library(name: str) -> dict[str, str]:
    module = import_module(name)
    return {"path": str(Path(module.__path__[0]))}


def _devices() -> list[str]:
    torch = import_module("torch")
    devices = ["cpu"]
    if torch.cuda.is_available():
        devices.append("cuda")
    if torch.backends.mps.is_available():
        devices.append("mps")
    return devices


def _native_library() -> dict[str, object]:
    from ...ops.backends import native_library

    return native_library.description()


def _backends() -> list[dict[str, object]]:
    from ...ops import backend_table

    return [vars(backend) for backend in backend_table(tuple(_devices()))]


def _lookup() -> dict[str, object]:
    find_objects = import_module("nnunetv2.utilities.find_objects")
    trainer = find_objects.recursive_find_trainer_class_by_name(TRAINER)
    return {"module": trainer.__module__, "by autoload": boot.announced}


def _in_own_tree() -> str | None:
    package = import_module("nnunetv2").__path__[0]
    folder = os.path.join(package, "training", "nnUNetTrainer")
    return _search(folder, "nnunetv2.training.nnUNetTrainer", package)


def _directories() -> list[dict[str, object]]:
    entries = os.environ.get(boot.EXT_TRAINER_VARIABLE, "").split(os.pathsep)
    # nnU-Net skips what does not exist.
    return [
        {
            "path": entry,
            "exists": os.path.exists(entry),
            "finds": _outcome(lambda entry=entry: _search(entry, None, entry), entry)
            if os.path.exists(entry)
            else None,
        }
        for entry in entries
        if entry.strip()
    ]


def _search(folder: str, module: str | None, base_folder: str) -> str | None:
    """Module of the trainer's class in a folder, as nnU-Net's own function finds it; None: not there."""
    find_class = import_module("nnunetv2.utilities.find_class_by_name")
    trainer = find_class.recursive_find_python_class(
        folder, TRAINER, module, base_folder=base_folder, cleanup_imports_from_base_folder=module is None
    )
    return None if trainer is None else trainer.__module__

"""Who may import whom, lazily or not, and how long a file may be."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "nnunetv2_lightm"
FOLDERS = {ROOT / PACKAGE: PACKAGE, ROOT / "dataset_conversion": f"{PACKAGE}.dataset_conversion"}
MAX_LINES = 350
# The engine: a distribution of its own, for machines without PyTorch and nnU-Net.
RUNTIME = ROOT / "runtime" / "lightm_runtime"
RUNTIME_LIBRARIES = {"numpy", "SimpleITK", "imageio", "PIL", "tifffile"}

# The rooms of the package that a room may import in addition to itself. "" is the package's own lazy __init__.
ALLOWED_PARTS = {
    "": {"ops", "networks"},
    "extras": {"installation"},
    "escaping": set(),
    "limits": set(),
    "dataset_json": set(),
    "json_input": {"dataset_json", "escaping"},
    "installation": {"escaping"},
    "files": {"signals"},
    "signals": set(),
    "option_types": set(),
    "nnunet": set(),
    "nnunet_faults": {"dataset_json", "escaping", "nnunet"},
    "checkpoints": set(),
    "preprocessed": {"nnunet_faults"},
    "images": {"dataset_json", "escaping", "files", "limits"},
    "ops": {"extras", "installation"},
    "layers": {"ops"},
    "networks": {"ops", "layers", "extras"},
    "optim": set(),
    "trainers": {
        "ops",
        "layers",
        "networks",
        "optim",
        "checkpoints",
        "dataset_json",
        "files",
        "nnunet_faults",
        "preprocessed",
        "images",
        "escaping",
    },
    "planning": {"dataset_json", "files", "nnunet", "nnunet_faults", "preprocessed"},
    "measure": {"limits"},
    "evaluation": {"dataset_json", "extras", "files", "images", "escaping", "json_input", "nnunet_faults"},
    "runs": {"checkpoints", "escaping", "files", "nnunet", "signals"},
    "released": {"checkpoints", "trainers", "files"},
    "deploy": {
        "ops",
        "layers",
        "networks",
        "trainers",
        "checkpoints",
        "dataset_json",
        "extras",
        "files",
        "images",
        "escaping",
        "json_input",
        "nnunet_faults",
    },
    "complexity": {
        "ops",
        "layers",
        "networks",
        "trainers",
        "measure",
        "evaluation",
        "nnunet",
        "escaping",
        "json_input",
        "nnunet_faults",
    },
    "benchmark": {
        "trainers",
        "measure",
        "evaluation",
        "runs",
        "complexity",
        "checkpoints",
        "extras",
        "files",
        "nnunet",
        "nnunet_faults",
        "escaping",
        "images",
        "json_input",
        "option_types",
    },
    "dataset_conversion": {"signals", "files", "images", "escaping", "limits", "nnunet", "option_types"},
    "autoload": {"trainers"},
    "commands": {
        "ops",
        "planning",
        "measure",
        "evaluation",
        "runs",
        "complexity",
        "benchmark",
        "released",
        "autoload",
        "dataset_conversion",
        "deploy",
        "images",
        "checkpoints",
        "files",
        "signals",
        "limits",
        "nnunet",
        "nnunet_faults",
        "escaping",
        "extras",
        "installation",
        "option_types",
    },
    "cli": {"commands", "installation", "escaping", ""},
}
# Libraries that only some rooms may import.
ALLOWED_USERS = {
    "nnunetv2": {
        "trainers",
        "planning",
        "preprocessed",
        "evaluation",
        "complexity",
        "benchmark",
        "released",
        "deploy",
        "commands.doctor.fresh_process",  # it runs in a process of its own
    },
    "torch": {
        "",
        "ops",
        "layers",
        "networks",
        "optim",
        "trainers",
        "checkpoints.safe_loading",
        "complexity",
        "benchmark",
        "released",
        "deploy",
        "evaluation.surface_scores",
        "commands.doctor.fresh_process",
    },
    "monai": {"networks.monai_networks", "evaluation.surface_scores"},
    "triton": {"ops.backends"},
    "mamba_ssm": {"ops.backends"},
    "causal_conv1d": {"ops.backends"},
    "selective_scan_cuda": {"ops.backends"},
    "ctypes": {"ops.backends", "measure.peak_rss"},  # the latter asks the C library to give back freed memory
    "thop": {"complexity"},
}
# The start of every Python: nothing but what these three need.
BOOT = {"autoload", "autoload.boot"}


def modules() -> dict[str, Path]:
    """All modules of the package, by their dotted name below it."""
    found = {}
    for folder, dotted in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [*dotted.split("."), *path.relative_to(folder).with_suffix("").parts]
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imported(source: str, module: str, is_package: bool) -> set[str]:
    """Dotted names that a module imports, anywhere in it, also by ``import_module("name")``."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".") if is_package else module.split(".")[:-1]
                above = above[: len(above) - node.level + 1]
                base = ".".join([*above, *filter(None, [node.module])])
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Call) and _name(node.func) in {"import_module", "__import__"}:
            argument = node.args[0] if node.args else None
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                names.add(argument.value)
    return names


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


@cache
def imports_by_module() -> dict[str, set[str]]:
    """What each module imports; modules without the package's name in front."""
    return {
        module.removeprefix(PACKAGE).removeprefix("."): imported(
            path.read_text(encoding="utf-8"), module, path.name == "__init__.py"
        )
        for module, path in modules().items()
    }


def part_of(module: str) -> str:
    return module.split(".")[0]


def inside(name: str) -> str | None:
    """The name below the package; None for the name of another library."""
    return name.removeprefix(PACKAGE).removeprefix(".") if name.split(".")[0] == PACKAGE else None


def test_parts_import_only_what_lies_below_them():
    wrong = []
    parts = {part_of(module) for module in imports_by_module()}
    for module, names in imports_by_module().items():
        allowed = ALLOWED_PARTS[part_of(module)] | {part_of(module)}
        for name in names:
            target = inside(name)
            # `from . import x` also names the package itself; only x counts.
            if target and part_of(target) in parts and part_of(target) not in allowed:
                wrong.append(f"{module} imports {name}")
    assert wrong == []


def test_libraries_are_imported_only_where_they_belong():
    wrong = []
    for module, names in imports_by_module().items():
        for library in {name.split(".")[0] for name in names} & ALLOWED_USERS.keys():
            if not any(f"{module}.".startswith(f"{user}.") for user in ALLOWED_USERS[library]):
                wrong.append(f"{module} imports {library}")
    assert wrong == []


def test_only_trainers_know_their_inside():
    wrong = []
    trainer_modules = {module for module in imports_by_module() if module.startswith("trainers.")}
    for module, names in imports_by_module().items():
        if part_of(module) not in {"trainers", "autoload"}:
            wrong += [f"{module} imports {name}" for name in names if inside(name) in trainer_modules]
    assert wrong == []


def test_start_of_python_needs_the_standard_library_alone():
    names = {module: imports_by_module()[module] for module in BOOT}
    assert names == {
        "autoload": {"os"},
        "autoload.boot": {"os", "sys", f"{PACKAGE}.autoload", f"{PACKAGE}.autoload.shim_directory"},
    }


def test_the_engine_needs_what_it_installs_alone():
    files = sorted(RUNTIME.rglob("*.py"))
    assert files
    wrong = []
    for path in files:
        names = imported(path.read_text(encoding="utf-8"), f"{RUNTIME.name}.{path.stem}", path.name == "__init__.py")
        libraries = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - RUNTIME_LIBRARIES
        wrong += [f"{path.name} imports {library}" for library in libraries - {RUNTIME.name}]
    assert wrong == []


@pytest.mark.parametrize("folder", [*FOLDERS, RUNTIME, ROOT / "tests"], ids=lambda folder: folder.name)
def test_files_are_short(folder):
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in folder.rglob("*.py")}
    assert {path.relative_to(ROOT): length for path, length in lengths.items() if length > MAX_LINES} == {}


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("def f():\n    from ..networks import lightm_unet", "nnunetv2_lightm.networks.lightm_unet"),
        ("class A:\n    def f(self):\n        import torch.nn as nn", "torch.nn"),
        ("from . import reference", "nnunetv2_lightm.ops.reference"),
        ("import importlib\nimportlib.import_module('nnunetv2.paths')", "nnunetv2.paths"),
    ],
)
def test_lazy_and_relative_imports_are_seen(source, name):
    assert name in imported(source, "nnunetv2_lightm.ops.selective_scan", is_package=False)


def test_relative_imports_of_a_package_start_in_it():
    assert "nnunetv2_lightm.ops.backends" in imported("from .backends import x", "nnunetv2_lightm.ops", is_package=True)

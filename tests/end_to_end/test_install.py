"""Installs the package into a fresh virtual environment and asks stock nnU-Net for its trainers there.

The environment sees the libraries of this one through a folder of links that leaves our own package out, so that what
is found there comes from the install under test.
"""

from __future__ import annotations

import json
import os
import pkgutil
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from installing import DISTRIBUTION, Environment, copy_checkout

from nnunetv2_lightm.autoload import boot

pytestmark = pytest.mark.end_to_end

SHIM = os.path.join("autoload", "shim")
# What nnU-Net and two other plug-ins are asked for, and the package the class has to come from.
EXPECTED = {
    "nnUNetTrainer": "nnunetv2",
    "nnUNetTrainerLightMUNet": "nnunetv2_lightm",
    "nnUNetTrainerLightMUNet_2epochs_3iters": "nnunetv2_lightm",
    "nnUNetTrainerLightMUNetPaperSGD_2epochs": "nnunetv2_lightm",
    "nnUNetTrainer_2epochs_3iters": "nnunetv2_lightm",
    "nnUNetTrainerOfTheUser": "user_module",
    "nnUNetTrainerOfAPlugin": "plugin_module",
}
LOOK_UP = f"""
import json, multiprocessing, os, pickle, sys
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find

OURS = [name for name, package in {EXPECTED!r}.items() if package == "nnunetv2_lightm"]

def found_in_spawned_process(names):
    return {{name: find(name).__module__ for name in names}}

def unpickles_to_the_same_class(trainer):
    return trainer is find(trainer.__name__)

if __name__ == "__main__":
    classes = {{name: find(name) for name in {list(EXPECTED)!r}}}
    try:
        find("nnUNetTrainerOfNobody")
        unknown = "found"
    except RuntimeError as error:
        unknown = str(error)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        spawned = pool.apply(found_in_spawned_process, (OURS,))
        # The classes travel to the other process as pickles.
        pickled = pool.map(unpickles_to_the_same_class, [classes[name] for name in OURS])
    report = dict(
        modules={{name: trainer.__module__ for name, trainer in classes.items()}},
        same_again=all(pickle.loads(pickle.dumps(classes[name])) is find(name) for name in OURS),
        unknown=unknown, spawned=spawned, pickled=pickled, variable=os.environ["nnUNet_extTrainer"],
    )
    with open(sys.argv[1], "w") as file:
        json.dump(report, file)
"""


def fresh_environment(folder: Path) -> Environment:
    """An environment with the libraries of this one, but not our package."""
    venv.create(folder / "venv", symlinks=os.name != "nt")
    link_libraries(folder / "libraries")
    environment = Environment(folder)
    (environment.site_packages / "libraries.pth").write_text(f"{folder / 'libraries'}\n")
    return environment


def link_libraries(folder: Path) -> None:
    folder.mkdir()
    for directory in dict.fromkeys(map(Path, sys.path)):
        if directory.name not in {"site-packages", "dist-packages"}:
            continue
        for entry in directory.iterdir():
            is_ours = "nnunetv2_lightm" in entry.name or entry.suffix in {".pth", ".start"}
            if not is_ours and not (folder / entry.name).exists():
                (folder / entry.name).symlink_to(entry)


@pytest.fixture(scope="module")
def source(repository, tmp_path_factory) -> Path:
    """A copy of the checkout, because building leaves files next to setup.py."""
    return copy_checkout(repository, tmp_path_factory.mktemp("source") / "checkout")


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(request, tmp_path_factory) -> Environment:
    """A fresh environment with the package in it; the last test takes it out again."""
    environment = fresh_environment(tmp_path_factory.mktemp(request.param))
    environment.before = environment.files()
    if request.param == "wheel":
        environment.pip("install", "--no-deps", request.getfixturevalue("wheel"))
    else:
        # The compiled library is the wheel's: to compile it takes most of an install, and `make install` does so.
        compiled = library_of(request.getfixturevalue("wheel"), tmp_path_factory.mktemp("library"))
        variables = {"NNUNETV2_LIGHTM_BUILD_LIBRARY": str(compiled)} if compiled else {}
        source = request.getfixturevalue("source")
        environment.pip("install", "--no-deps", "--no-build-isolation", "-e", source, **variables)
    assert environment.files() > environment.before
    return environment


def library_of(wheel: Path, folder: Path) -> Path | None:
    """The compiled library of a wheel, unpacked; None where nothing could be compiled."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith("nnunetv2_lightm/ops/_native.")]
        return Path(archive.extract(names[0], folder)) if names else None


def user_directory(path: Path, module: str, trainer: str) -> Path:
    path.mkdir()
    (path / f"{module}.py").write_text(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        f"class {trainer}(nnUNetTrainer):\n    pass\n"
    )
    return path


def extended_variable(environment: Environment, *options: str, **variables: str) -> list[str]:
    script = "import os; print(os.environ.get('nnUNet_extTrainer', ''))"
    return "".join(environment.python_says(script, *options, **variables)).split(os.pathsep)


def test_wheel_holds_the_whole_package_and_nothing_else(wheel, source):
    folders = {source / "nnunetv2_lightm": "nnunetv2_lightm", source / "dataset_conversion": "dataset_conversion"}
    modules = {
        str(Path(place, path.relative_to(folder))).replace(
            "dataset_conversion", "nnunetv2_lightm/dataset_conversion", 1
        )
        for folder, place in folders.items()
        for path in folder.rglob("*.py")
    }
    # What `export --web` compiles and joins.
    web = {
        str(Path("nnunetv2_lightm", place, path.name))
        for folder, place in (
            ("nnunetv2_lightm/ops/csrc", "ops/csrc"),
            ("nnunetv2_lightm/deploy/web/page", "deploy/web/page"),
            ("runtime/src", "deploy/web/engine_sources"),
        )
        for path in (source / folder).glob("[!.]*")
    }
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    compiled = {name for name in names if name.startswith("nnunetv2_lightm/ops/_native.")}  # where there is a compiler
    others = {"nnunetv2_lightm.pth", "nnunetv2_lightm.start", "nnunetv2_lightm/py.typed"}
    assert set(names) == modules | web | compiled | others


def test_stock_look_up_finds_us_beside_other_plugins(installed, tmp_path):
    """The user's directory by the variable, another plug-in by a start-up file of its own that comes after ours."""
    user = user_directory(tmp_path / "user", "user_module", "nnUNetTrainerOfTheUser")
    plugin = user_directory(tmp_path / "plugin", "plugin_module", "nnUNetTrainerOfAPlugin")
    startup_file = installed.site_packages / "zz_plugin.pth"
    startup_file.write_text(
        f"import os; v = os.environ['nnUNet_extTrainer']; p = {str(plugin)!r}; "
        "os.environ['nnUNet_extTrainer'] = v if p in v else v + os.pathsep + p\n"
    )
    script = installed.elsewhere / "look_up.py"
    script.write_text(LOOK_UP)
    try:
        installed.run(script, tmp_path / "report.json", nnUNet_extTrainer=str(user))
    finally:
        startup_file.unlink()
    report = json.loads((tmp_path / "report.json").read_text())
    assert {name: module.split(".")[0] for name, module in report["modules"].items()} == EXPECTED
    first, second, third = report["variable"].split(os.pathsep)
    assert (first, third) == (str(user), str(plugin))
    assert second.endswith(SHIM)
    assert report["spawned"] == {name: report["modules"][name] for name in report["spawned"]}
    assert len(report["spawned"]) == len(report["pickled"]) == 4
    assert all(report["pickled"])
    assert report["same_again"]
    assert "Could not find requested nnunet trainer nnUNetTrainerOfNobody" in report["unknown"]


def test_entries_of_the_user_come_first(installed):
    user, shim = extended_variable(installed, nnUNet_extTrainer="/the/user's own")
    assert user == "/the/user's own"
    assert shim.endswith(SHIM)


def test_kill_switch(installed):
    assert extended_variable(installed, NNUNETV2_LIGHTM_AUTOLOAD="0") == [""]


def test_isolated_python_finds_us_and_python_without_site_does_not(installed):
    """``-S`` reads no start-up files; whoever needs it exports what ``doctor --print-trainer-path`` prints."""
    (isolated,) = extended_variable(installed, "-I")
    assert isolated.endswith(SHIM)
    assert extended_variable(installed, "-S") == [""]


def test_startup_entry_of_newer_pythons_is_the_same_function(installed):
    (entry,) = (installed.site_packages / "nnunetv2_lightm.start").read_text().splitlines()
    assert pkgutil.resolve_name(entry) is boot.announce


def test_startup_file_is_silent_where_the_package_is_gone(installed, tmp_path):
    shutil.copy(installed.site_packages / "nnunetv2_lightm.pth", tmp_path)
    script = f"import os, site; site.addsitedir({str(tmp_path)!r}); print(os.environ.get('nnUNet_extTrainer'))"
    assert installed.python_says(script, "-S") == ["None"]


def test_command_is_there(installed):
    command = installed.python.with_name("nnUNetv2_lightm")
    finished = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert finished.stdout.startswith(f"{DISTRIBUTION} ")


def test_uninstall_leaves_no_trace(installed):
    installed.pip("uninstall", "--yes", DISTRIBUTION)
    assert installed.files() == installed.before
    assert extended_variable(installed) == [""]

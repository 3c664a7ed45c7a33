"""autoload/boot.py: what it does to nnUNet_extTrainer, and that it costs next to nothing."""

from __future__ import annotations

import ntpath
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from nnunetv2_lightm.autoload import boot, shim_directory

VARIABLE = "nnUNet_extTrainer"


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.delenv("NNUNETV2_LIGHTM_AUTOLOAD", raising=False)
    monkeypatch.setattr(boot, "announced", False)


def announce_to(monkeypatch, value: str) -> str:
    monkeypatch.setenv(VARIABLE, value)
    boot.announce()
    return os.environ[VARIABLE]


SCRIPT = """
import os
os.environ["nnUNet_extTrainer"] = "/of/the/script"
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find
os.environ["nnUNet_extTrainer"] = "/set/again"
print(find("nnUNetTrainerLightMUNet_2epochs").__mro__[1].__module__)
print(os.environ["nnUNet_extTrainer"])
"""


@pytest.mark.slow
def test_a_script_that_sets_the_variable_hides_nothing():
    """Before nnU-Net is imported, and after: its first look-up imports what puts the directory back."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, cwd="/")
    *_, module, value = done.stdout.splitlines()
    assert module == "nnunetv2_lightm.trainers.lightm_unet"
    assert value == os.pathsep.join(["/set/again", shim_directory()])


def test_each_import_of_nnunet_puts_the_directory_back(monkeypatch):
    boot.announce()
    assert sys.meta_path.count(boot.AnnounceAgain) == 1
    for name, there in (("nnunetv2.paths", True), ("nnunetv2_other", False), ("numpy.x", False)):
        monkeypatch.setenv(VARIABLE, "/of/the/script")
        assert boot.AnnounceAgain.find_spec(name) is None
        assert (shim_directory() in os.environ[VARIABLE].split(os.pathsep)) is there


def test_the_switch_holds_in_a_script():
    change = "import os; os.environ['nnUNet_extTrainer'] = '/x'"
    script = f"{change}; import nnunetv2.paths; print(os.environ['nnUNet_extTrainer'])"
    environment = {**os.environ, "NNUNETV2_LIGHTM_AUTOLOAD": "0"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "/x\n"


def test_unset_variable_holds_the_shim_directory_alone():
    boot.announce()
    assert os.environ[VARIABLE] == shim_directory()
    assert boot.announced


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", "{shim}"),
        (r"D:\\plug ins;C:\\other", r"D:\\plug ins;C:\\other;{shim}"),
        (r"D:\\plug ins;c:/users/jürgen/SITE-PACKAGES/shim/", r"D:\\plug ins;c:/users/jürgen/SITE-PACKAGES/shim/"),
    ],
)
def test_paths_of_windows(monkeypatch, value, expected):
    """`;` separates, the `:` of a drive does not, and neither case nor the kind of slash tells paths apart."""
    shim = "C:\\Users\\Jürgen\\site-packages\\shim"
    environment = {VARIABLE: value} if value else {}
    monkeypatch.setattr(boot, "os", SimpleNamespace(environ=environment, path=ntpath, pathsep=";"))
    monkeypatch.setattr(boot, "shim_directory", lambda: shim)
    boot.announce()
    assert environment[VARIABLE] == expected.format(shim=shim)
    boot.announce()
    assert environment[VARIABLE] == expected.format(shim=shim)


def test_empty_variable_gets_no_empty_entry(monkeypatch):
    assert announce_to(monkeypatch, "") == shim_directory()


def test_entries_of_the_user_stay_as_they_are_and_come_first(monkeypatch):
    value = os.pathsep.join(["relative/dir/", "/b", "", "/a", "/b"])
    assert announce_to(monkeypatch, value) == value + os.pathsep + shim_directory()


@pytest.mark.parametrize("spelling", ["{}", "{}/", " {} ", "/x{sep}{}{sep}/y"])
def test_directory_that_is_there_already_is_not_added_again(monkeypatch, spelling):
    value = spelling.format(shim_directory(), sep=os.pathsep)
    assert announce_to(monkeypatch, value) == value
    assert not boot.announced


def test_directory_that_nnunet_would_take_apart_is_left_out(monkeypatch):
    """At each nested start it would be appended again. Windows, too, allows its separator in names: ``;``."""
    directory = f"/an/environment{os.pathsep}with/a{os.pathsep}separator/shim"
    monkeypatch.setattr(boot, "shim_directory", lambda: directory)
    for value in ("", "/a", directory):
        assert announce_to(monkeypatch, value) == value
    assert not boot.announced


def test_twice_is_once():
    boot.announce()
    boot.announce()
    assert os.environ[VARIABLE] == shim_directory()


@pytest.mark.parametrize("off", ["0", "false", "False", "OFF", "no", " 0 "])
def test_kill_switch(monkeypatch, off):
    monkeypatch.setenv("NNUNETV2_LIGHTM_AUTOLOAD", off)
    assert announce_to(monkeypatch, "/a") == "/a"


@pytest.mark.parametrize("on", ["1", "true", "", "yes"])
def test_other_values_of_the_switch_leave_it_on(monkeypatch, on):
    monkeypatch.setenv("NNUNETV2_LIGHTM_AUTOLOAD", on)
    boot.announce()
    assert os.environ[VARIABLE] == shim_directory()


def test_start_of_python_loads_nothing_else(repository):
    """It runs at every start of the interpreter: only our own three modules may be loaded by it."""
    script = (
        f"import os, sys; sys.path.insert(0, {str(repository)!r}); before = set(sys.modules); "
        "import nnunetv2_lightm.autoload.boot; print(*sorted(set(sys.modules) - before))"
    )
    output = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True)
    assert output.stdout.split() == ["nnunetv2_lightm", "nnunetv2_lightm.autoload", "nnunetv2_lightm.autoload.boot"]

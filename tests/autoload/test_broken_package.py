"""The start-up file is silent whatever state the package is in; the command line says what is wrong."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

VARIABLE = "nnUNet_extTrainer"


@pytest.fixture
def site_packages(repository, tmp_path):
    """A folder with the package and its start-up file, as pip leaves them; without what the start does not need."""
    tree = ast.parse((repository / "setup.py").read_text())
    (lines,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "STARTUP_FILES"
    )
    folder, package = tmp_path / "site", repository / "nnunetv2_lightm"
    for name in ("autoload", "commands", "images"):
        skipped = shutil.ignore_patterns("__pycache__")
        shutil.copytree(package / name, folder / "nnunetv2_lightm" / name, ignore=skipped)
    for file in package.glob("*.py"):
        shutil.copy(file, folder / "nnunetv2_lightm")
    (folder / "nnunetv2_lightm.pth").write_text(lines["nnunetv2_lightm.pth"] + "\n")
    return folder


def start_python(folder: Path, code: str = "pass") -> subprocess.CompletedProcess:
    """With the start-up files of that folder alone; prints the variable."""
    begin = f"import os, site, sys; site.addsitedir({str(folder)!r})"
    script = f"{begin}; {code}; print(os.environ.get({VARIABLE!r}))"
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    return subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, env=environment)


def test_a_whole_one_works(site_packages):
    process = start_python(site_packages)
    assert process.stdout.strip() == str(site_packages / "nnunetv2_lightm" / "autoload" / "shim"), process.stderr
    assert process.stderr == ""


def cut_off(share):
    def damage(package):
        for name in ("autoload/boot.py", "autoload/__init__.py"):
            data = (package / name).read_bytes()
            (package / name).write_bytes(data[: int(len(data) * share)])

    return damage


def write(name, data):
    return lambda package: (package / name).write_bytes(data)


def unreadable(package):
    (package / "autoload" / "boot.py").unlink()
    (package / "autoload" / "boot.py").symlink_to("/proc/1/mem" if os.geteuid() == 0 else "/etc/shadow")


def a_folder_in_its_place(package):
    (package / "autoload" / "boot.py").unlink()
    (package / "autoload" / "boot.py").mkdir()


def a_link_to_itself(package):
    (package / "autoload" / "boot.py").unlink()
    (package / "autoload" / "boot.py").symlink_to("boot.py")


DAMAGES = {
    **{f"cut off at {share:.0%}": cut_off(share) for share in (0, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.97)},
    "null bytes": write("autoload/boot.py", bytes(1000)),
    "not UTF-8": write("autoload/boot.py", b"name = '\xff'\n"),
    "another Python": write("autoload/boot.py", b"print 'hello'\n"),
    "fails when it is imported": write("autoload/boot.py", b"1 / 0\n"),
    "announce fails": write("autoload/boot.py", b"def announce():\n    raise RuntimeError('no')\n"),
    "announce is something else": write("autoload/boot.py", b"announce = 3\n"),
    "the package itself": write("__init__.py", b"def broken(:\n"),
    "unreadable": unreadable,
    "a folder": a_folder_in_its_place,
    "a link to itself": a_link_to_itself,
    "half uninstalled": lambda package: shutil.rmtree(package / "autoload"),
    "uninstalled": shutil.rmtree,
}


@pytest.mark.skipif(os.name != "posix", reason="makes links")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_one_is_silent(site_packages, damage):
    DAMAGES[damage](site_packages / "nnunetv2_lightm")
    process = start_python(site_packages)
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.strip() in ("None", str(site_packages / "nnunetv2_lightm" / "autoload" / "shim"))


@pytest.mark.parametrize("damage", ["cut off at 50%", "cut off at 90%", "null bytes", "another Python"])
@pytest.mark.slow
def test_the_doctor_says_so(site_packages, damage):
    DAMAGES[damage](site_packages / "nnunetv2_lightm")
    code = (
        f"import sys; sys.path.insert(0, {str(site_packages)!r})\n"
        "for name in [name for name in sys.modules if name.startswith('nnunetv2_lightm')]: del sys.modules[name]\n"
        "from nnunetv2_lightm.cli import main; sys.exit(main(['doctor']))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 1
    assert "a library is missing or broken" in process.stderr and "Install this package again" in process.stderr
    assert "Traceback" not in process.stderr


def test_nested_starts_do_not_let_the_variable_grow(site_packages, tmp_path):
    nested = "import subprocess; print(subprocess.check_output([sys.executable, '-I', '-S', '-c', inner], text=True))"
    for folder, expected in ((site_packages, 1), (tmp_path / f"with{os.pathsep}separator", 0)):
        if folder != site_packages:
            shutil.copytree(site_packages, folder)
        count = f"print(os.environ.get({VARIABLE!r}, '').count('shim'))"
        inner = f"import os, site; site.addsitedir({str(folder)!r}); {count}"
        process = start_python(folder, f"inner = {inner!r}; {nested}")
        assert process.stdout.split()[0] == str(expected), process.stderr

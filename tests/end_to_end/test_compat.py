"""`make compat` itself: what it covers, and that it neither hides a failure nor what it could not check."""

from __future__ import annotations

import json
import sys
from importlib.metadata import requires
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import compat
import pytest
from installing import CheckFailed
from packaging.requirements import Requirement

PYTHONS = {"3.10": Path("python3.10"), "3.13": Path("python3.13")}


def fail_if(broken, message):
    if broken:
        raise CheckFailed(message)


class FakeEnvironment:
    """Answers like an environment in which all is well, or in which `breaks` is not."""

    def __init__(self, root, breaks=None):
        self.root, self.python, self.breaks = root / "venv", root / "venv/bin/python", breaks
        self.installed, self.left = False, set()
        self.site_packages = root / "site-packages"
        metadata = self.site_packages / "nnunetv2_lightm-1.0.dist-info"
        metadata.mkdir(parents=True, exist_ok=True)
        (metadata / "WHEEL").write_text("Tag: py3-none-any\n", encoding="utf-8")

    def files(self):
        return {"lib.py", *self.left, *(["ours.py"] if self.installed else [])}

    def pip(self, action, *arguments, **_):
        if action == "check":
            fail_if(self.breaks == "check", "nnunetv2-lightm 1.0 requires pydantic, which is not installed.")
            return
        fail_if(self.breaks == "install" and action == "install", "ERROR: No matching distribution found")
        assert not (self.installed and action == "install"), "pip would leave what is there"
        if self.breaks == "uninstall" and self.installed:
            self.left = {f"trace{len(self.left)}.pth", *self.left}
        self.installed = action == "install"

    def command(self, program, command, *_, **__):
        assert self.installed
        if command == "doctor":
            fail_if(self.breaks == "doctor", "all is lost\nTraining cannot start.")
            tag = "cp313-cp313-linux" if self.breaks == "tag" else "py3-none-any"
            message = f"1.0, wheel {tag} from /wheels"
            finding = {"subject": "nnunetv2-lightm", "status": "OK", "message": message}
            return SimpleNamespace(stdout=json.dumps({"findings": [finding]}))
        assert command == "backends"
        name = "cpu_native" if self.breaks == "backend" else "torch_chunked"
        return SimpleNamespace(stdout=f"   BACKEND\n*  {name}  cpu  yes  what it is\n")

    def run(self, *_, **__):
        assert self.installed
        return SimpleNamespace(stdout=f"nnU-Net says something\n{json.dumps({'torch': '2.0'})}\n")


@pytest.fixture
def sources(monkeypatch):
    fake = SimpleNamespace(why_not=lambda install: None, arguments=lambda install: (), variables=lambda install: {})
    monkeypatch.setattr(compat, "Sources", lambda folder, wheels: fake)
    return fake


@pytest.fixture
def run(monkeypatch, tmp_path, sources):
    """Runs main with fake environments, of which the one of Python 3.13 may be broken or not to be had."""
    monkeypatch.setattr(compat, "find_interpreters", lambda supported, wanted: PYTHONS)
    monkeypatch.setattr(compat, "installs", lambda turn: (compat.Install(compat.WHEEL, compiled=False),))

    def with_problem(breaks):
        def make(folder, interpreter, nnunetv2):
            fail_if(breaks == "everything", "no network")
            fail_if(breaks == "environment" and interpreter == PYTHONS["3.13"], "no network")
            return FakeEnvironment(folder, breaks if interpreter == PYTHONS["3.13"] else None)

        monkeypatch.setattr(compat, "make_environment", make)
        return compat.main(["--folder", str(tmp_path / "compat")])

    return with_problem


def test_any_two_of_the_choices_occur_together():
    rows = [
        {"python": python, "nnunetv2": nnunetv2, "kind": install.kind, "compiled": install.compiled}
        for p, python in enumerate(PYTHONS)
        for n, nnunetv2 in enumerate(compat.NNUNETV2)
        for install in compat.installs(p + n)
    ]
    values = {key: {row[key] for row in rows} for key in rows[0]}
    for a, b in product(values, repeat=2):
        if a != b:
            assert {(row[a], row[b]) for row in rows} == set(product(values[a], values[b]))


def test_all_passed(run, capsys):
    assert run(None) == 0
    table = capsys.readouterr().out.split("\n\n")[-1].splitlines()
    assert len(table) == 1 + 2 * len(compat.NNUNETV2)
    assert all("passed" in line and "torch 2.0" in line for line in table[1:])


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        ("install", "FAILED: ERROR: No matching distribution found"),
        ("check", "FAILED: nnunetv2-lightm 1.0 requires pydantic, which is not installed."),
        ("doctor", "FAILED: Training cannot start."),
        ("tag", "FAILED: doctor does not say `wheel py3-none-any from` but: 1.0, wheel cp313-cp313-linux from /wheels"),
        ("backend", "FAILED: the backend on the CPU is ['cpu_native'], expected torch_chunked"),
        ("uninstall", "FAILED: the uninstallation left or took 1 files, such as trace0.pth"),
    ],
)
def test_what_fails_is_told(run, capsys, breaks, message):
    assert run(breaks) == 1
    table = capsys.readouterr().out.split("\n\n")[-1]
    assert table.count(message) == 2 and table.count("passed") == 2


def test_a_check_that_failed_leaves_nothing_to_the_next(tmp_path):
    environment = FakeEnvironment(tmp_path, breaks="doctor")
    sources = SimpleNamespace(why_not=lambda install: None, arguments=lambda install: (), variables=lambda install: {})
    install = compat.Install(compat.WHEEL, compiled=False)
    assert compat.check("here", environment, sources, install).result.startswith("FAILED")
    environment.breaks = None
    assert compat.check("here", environment, sources, install).result == "passed"


def test_what_cannot_be_had_is_not_called_passed(run, capsys):
    assert run("environment") == 0
    table = capsys.readouterr().out.split("\n\n")[-1]
    assert table.count("not checked: the environment cannot be had: no network") == 2 and table.count("passed") == 2
    assert run("everything") == 1


def test_finished_wheels_are_installed_without_a_compiler(tmp_path):
    (tmp_path / "dist").mkdir()
    sources = compat.Sources(tmp_path, tmp_path / "dist")
    install = compat.Install(compat.INDEX, compiled=True)
    assert sources.why_not(install) is None
    assert sources.arguments(install) == (
        "--no-index",
        "--no-deps",
        "--find-links",
        tmp_path / "dist",
        "nnunetv2-lightm",
    )
    assert not Path(sources.variables(install)["CXX"]).exists()


def test_without_a_compiler_the_compiled_installs_are_not_checked(run, sources, capsys):
    sources.why_not = lambda install: "no compiler"
    assert run(None) == 1
    assert "not checked: no compiler" in capsys.readouterr().out


def test_interpreters_are_the_oldest_and_the_newest_that_run(monkeypatch, capsys):
    monkeypatch.setattr(
        compat, "find_interpreter", lambda version: None if version == "3.13" else Path(f"python{version}")
    )
    supported = compat.supported_pythons()
    assert {"3.10", "3.11"} < set(supported)
    assert list(compat.find_interpreters(["3.10", "3.11", "3.12", "3.13"], None)) == ["3.10", "3.12"]
    assert "Python 3.13" in capsys.readouterr().out
    assert list(compat.find_interpreters(["3.11", "3.12"], ["3.11"])) == ["3.11"]
    assert list(compat.find_interpreters(["3.11"], None)) == ["3.11"]


def test_this_interpreter_is_found_and_another_version_is_not(monkeypatch, tmp_path):
    here = ".".join(map(str, sys.version_info[:2]))
    assert compat.find_interpreter(here) == Path(sys.executable)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert compat.find_interpreter("3.1") is None


def test_what_the_package_needs_is_there_before_it():
    """Or pip would leave it behind, and the check take it for the package's."""
    needed = [Requirement(text) for text in requires(compat.DISTRIBUTION) if "extra ==" not in text]
    assert {*map(Requirement, compat.dependencies())} == {*needed}

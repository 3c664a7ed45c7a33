"""installation.py: how an installation is described, and that the printed command would repeat it."""

from __future__ import annotations

import json
import shlex
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from nnunetv2_lightm import installation


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Makes the metadata of an install by pip; its argument: what direct_url.json holds, None: there is none."""

    def make(direct_url: dict | None) -> None:
        folder = tmp_path / "nnunetv2_lightm-1.2.3.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: nnunetv2-lightm\nVersion: 1.2.3\n")
        (folder / "WHEEL").write_text("Wheel-Version: 1.0\nTag: py3-none-manylinux2014_x86_64\n")
        if direct_url is not None:
            (folder / "direct_url.json").write_text(json.dumps(direct_url))
        monkeypatch.setattr(installation, "distribution", lambda name: PathDistribution(folder))

    return make


def test_editable_install_of_a_clone(installed, tmp_path):
    clone = tmp_path / "my clone"
    installed({"url": clone.as_uri(), "dir_info": {"editable": True}})
    assert installation.describe() == f"1.2.3, editable install of {clone}"
    assert installation.reinstall_command() == f"python -m pip install --no-deps --editable '{clone}'"


def test_wheel_from_a_file(installed, tmp_path):
    wheel = tmp_path / "nnunetv2_lightm-1.2.3-py3-none-manylinux2014_x86_64.whl"
    installed({"url": wheel.as_uri(), "archive_info": {}})
    assert installation.describe() == f"1.2.3, wheel py3-none-manylinux2014_x86_64 from {wheel}"
    expected = f"python -m pip install --force-reinstall --no-deps --no-cache-dir {wheel}"
    assert installation.reinstall_command() == expected


def test_wheel_from_an_index(installed):
    installed(None)
    assert installation.describe() == "1.2.3, wheel py3-none-manylinux2014_x86_64 from a package index"
    assert " nnunetv2-lightm==1.2.3 " in installation.reinstall_command()
    assert "--find-links" in installation.reinstall_command().partition("#")[2]


@pytest.mark.parametrize(
    ("noted", "rest"),
    [
        ({}, "@abc"),
        ({"requested_revision": "v0.1.0"}, "@v0.1.0"),
    ],
)
@pytest.mark.parametrize(("where", "end"), [({}, ""), ({"subdirectory": "a/b"}, "#subdirectory=a/b")])
def test_version_control(installed, noted, rest, where, end):
    """The same revision, also where none was asked for: the newest is another one by now."""
    vcs = {"vcs": "git", "commit_id": "abc"} | noted
    installed({"url": "https://example.org/lightm.git", "vcs_info": vcs} | where)
    (*_, source) = shlex.split(installation.reinstall_command())
    assert source == f"git+https://example.org/lightm.git{rest}{end}"


def test_checkout_that_was_not_installed(monkeypatch):
    def missing(name):
        raise installation.PackageNotFoundError(name)

    monkeypatch.setattr(installation, "distribution", missing)
    root = Path(__file__).resolve().parent.parent
    assert installation.describe() == f"not installed, imported from {root}"
    assert installation.reinstall_command() == f"python -m pip install --editable {root}"

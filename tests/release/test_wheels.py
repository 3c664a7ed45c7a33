"""What is wrong with a distribution that must not be uploaded."""

from __future__ import annotations

import io
import tarfile
import zipfile

import pytest

LICENCE = "nnunetv2_lightm-1.2.0.dist-info/licenses/LICENSE"


def wheel(folder, *names):
    path = folder / "nnunetv2_lightm-1.2.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("nnunetv2_lightm-1.2.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        for name in names:
            archive.writestr(name, "")
    return path


def source(folder, name, text):
    path = folder / "lightm_runtime-1.2.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text.encode()))
    return path


def test_a_wheel_has_the_licence(tmp_path):
    from release import products, wheels

    wheels.check_wheel(wheel(tmp_path, LICENCE), products.PACKAGE, None)
    with pytest.raises(wheels.WheelError, match="has no licence"):
        wheels.check_wheel(wheel(tmp_path, "nnunetv2_lightm/LICENSE"), products.PACKAGE, None)


def test_a_wheel_for_all_platforms_has_no_library(tmp_path):
    from release import products, wheels

    with pytest.raises(wheels.WheelError, match=r"holds \['nnunetv2_lightm/ops/_native.so'\], expected \[\]"):
        wheels.check_wheel(wheel(tmp_path, LICENCE, "nnunetv2_lightm/ops/_native.so"), products.PACKAGE, None)


def test_a_source_distribution_names_no_path_of_this_machine(tmp_path):
    from release import wheels

    name = "lightm_runtime-1.2.0/lightm_runtime.egg-info/SOURCES.txt"
    wheels.check_source(source(tmp_path, name, "src/a.cpp\n"), tmp_path)
    with pytest.raises(wheels.WheelError, match=r"has paths of this machine.*SOURCES\.txt"):
        wheels.check_source(source(tmp_path, name, f"{tmp_path}/src/a.cpp\n"), tmp_path)


def test_both_distributions_have_the_same_licence(repository):
    """lightm-runtime's is a copy: setuptools takes no file from outside of a distribution's folder."""
    assert (repository / "LICENSE").read_bytes() == (repository / "runtime" / "LICENSE").read_bytes()


def test_only_files_that_were_installed_are_published(repository):
    yaml = pytest.importorskip("yaml")
    workflow = yaml.safe_load((repository / ".github" / "workflows" / "wheels.yml").read_text(encoding="utf-8"))
    publish = workflow["jobs"]["publish"]
    assert publish["needs"] == "install" and workflow["jobs"]["install"]["needs"] == "build"
    assert publish["if"] == "startsWith(github.ref, 'refs/tags/v')"
    assert publish["permissions"] == {"id-token": "write"} and workflow["permissions"] == {"contents": "read"}
    assert [step["uses"].partition("@")[0] for step in publish["steps"] if "uses" in step] == [
        "actions/download-artifact",
        "pypa/gh-action-pypi-publish",
    ]

"""When `make test` installs again, and what `make clean` takes away."""

from __future__ import annotations

import os
import shutil
import subprocess
import time

import pytest

import native_build

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture
def make(repository, tmp_path):
    """Runs make; its argument: options. The environment that it would use is newer than all sources."""
    (tmp_path / "bin").mkdir()
    for name in ("bin/pip", "bin/ruff", ".installed"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() + 3600,) * 2)
    without = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}

    def run(*options):
        return subprocess.run(
            ["make", *options, f"VENV={tmp_path}"],
            cwd=repository,
            env=without,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_nothing_is_installed_again_if_nothing_changed(make):
    assert make("--question", "install").returncode == 0


@pytest.mark.parametrize(
    "changed",
    [
        "native_build.py",
        "nnunetv2_lightm/ops/backends/native_interface.py",
        "runtime/src/lightm.cpp",
        "runtime/src/lightm.h",
        native_build.SOURCES[0].as_posix(),
        native_build.HEADERS[0].as_posix(),
    ],
)
def test_a_change_of_what_is_compiled_installs_again(make, changed):
    assert make("--question", "--what-if", changed, "install").returncode == 1


def test_lint_needs_ruff_alone(make):
    said = make("--dry-run", "--what-if", "pyproject.toml", "lint").stdout
    assert "pip install --quiet" in said and "ruff==" in said
    assert "--editable" not in said


def test_clean_takes_the_libraries_away(make):
    said = make("--dry-run", "clean").stdout.split()
    for library in ("nnunetv2_lightm/ops/_native", "runtime/lightm_runtime/_engine"):
        assert {f"{library}.so", f"{library}.dylib", f"{library}.dll"} <= set(said)

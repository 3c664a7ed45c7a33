"""Installs the package where nothing can be compiled: it says what is lost, and works without it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from installing import copy_checkout, no_compiler

pytestmark = pytest.mark.end_to_end

TRAIN = """
import torch
from pathlib import Path
import nnunetv2_lightm
from nnunetv2_lightm.networks import LightMUNet
from nnunetv2_lightm.ops import select_backend
print(Path(nnunetv2_lightm.__file__).parent, select_backend("cpu"))
torch.manual_seed(0)
for spatial_dims in (2, 3):
    network = LightMUNet(1, 2, spatial_dims=spatial_dims, features=8)
    loss = network(torch.randn(1, 1, *(16,) * spatial_dims)).square().mean()
    loss.backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())
"""


@pytest.fixture(scope="module")
def attempt(repository, tmp_path_factory) -> tuple[Path, str]:
    """A folder with the package, installed with compilers that are not there, and what pip said."""
    folder = tmp_path_factory.mktemp("without_compiler")
    copy_checkout(repository, folder / "checkout")
    command = [sys.executable, "-m", "pip", "install", "-v", "--no-deps", "--no-build-isolation"]
    finished = subprocess.run(
        [*command, "--target", folder / "installed", folder / "checkout"],
        env=os.environ | no_compiler(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    said = finished.stdout + finished.stderr
    assert finished.returncode == 0, said
    return folder / "installed", said


def run(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the environment, where no other copy of the package comes first."""
    without = ("NNUNETV2_LIGHTM_BACKEND",)
    environment = {name: value for name, value in os.environ.items() if name not in without}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=installed.parent,
        env=environment | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_install_succeeds_and_says_what_is_lost(attempt):
    installed, said = attempt
    assert "installed without its compiled selective scan" in said
    assert "C++17 compiler (GCC or Clang)" in said
    assert not list(installed.rglob("*.so"))


def test_networks_compute_and_learn(attempt):
    installed, _ = attempt
    finished = run(installed, "-c", TRAIN)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert finished.stdout.split() == [str(installed / "nnunetv2_lightm"), "torch_chunked"]


def test_the_table_of_backends_gives_the_reason(attempt):
    installed, _ = attempt
    finished = run(installed, "-m", "nnunetv2_lightm.cli", "backends")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    lines = [line.split() for line in finished.stdout.splitlines()]
    (native,) = [line for line in lines if line[:2] == ["cpu_native", "cpu"]]
    assert native[2] == "no" and "compiled" in native and "GCC" in native
    assert any(line[:4] == ["*", "torch_chunked", "cpu", "yes"] for line in lines)


def test_asking_for_it_by_name_fails_loudly(attempt):
    installed, _ = attempt
    script = "from nnunetv2_lightm.ops import select_backend; select_backend('cpu', 'cpu_native')"
    finished = run(installed, "-c", script)
    assert finished.returncode != 0
    assert "the requested scan backend 'cpu_native' does not run" in finished.stderr
    assert "was not compiled at installation" in finished.stderr

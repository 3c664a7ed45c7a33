"""Builds in one checkout, one after the other, as `git pull && pip install .` does: nothing of the earlier is left."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from installing import copy_checkout, no_compiler

import native_build

pytestmark = pytest.mark.end_to_end


@dataclass(frozen=True)
class Checkout:
    """Attributes:
    folder: Of setup.py.
    library: The compiled library's file in it.
    module: Some module of the package, whose folder is there.
    """

    folder: Path
    library: Path
    module: Path

    def setup(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run setup.py where nothing can be compiled."""
        return subprocess.run(
            [sys.executable, "setup.py", *command],
            cwd=self.folder,
            env=os.environ | no_compiler(self.folder) | variables,
            capture_output=True,
            text=True,
            check=False,
        )

    def built(self, path: Path) -> list[Path]:
        """Copies of a file in what would be packed."""
        return list(self.folder.glob(f"build/lib*/{path}"))


@pytest.fixture(params=["nnunetv2-lightm", "lightm-runtime"])
def checkout(request, repository, tmp_path) -> Checkout:
    copy = copy_checkout(repository, tmp_path / "checkout")
    ending = Path(native_build.library_name(sys.platform)).suffix
    if request.param == "lightm-runtime":
        package = Path("lightm_runtime")
        return Checkout(copy / "runtime", package / f"_engine{ending}", package / "left.py")
    package = Path("nnunetv2_lightm")
    return Checkout(copy, package / "ops" / f"_native{ending}", package / "left.py")


def compiles_nothing(checkout: Checkout) -> bool:
    """Whether a build without a compiler is a success."""
    return checkout.folder.name != "runtime"


def test_what_an_earlier_build_left_is_not_packed(checkout, tmp_path):
    given = tmp_path / checkout.library.name
    given.write_bytes(b"a library of another version")
    (checkout.folder / checkout.module).touch()
    finished = checkout.setup("build", NNUNETV2_LIGHTM_BUILD_LIBRARY=str(given))
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert checkout.built(checkout.library) and checkout.built(checkout.module)
    (checkout.folder / checkout.module).unlink()
    assert (checkout.setup("build").returncode == 0) == compiles_nothing(checkout)
    assert not checkout.built(checkout.library) and not checkout.built(checkout.module)


def test_a_folder_of_the_users_choice_is_kept(checkout, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    checkout.setup("build", "--build-lib", str(tmp_path / "mine"))
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"


def test_an_old_library_does_not_pass_for_one_that_does_not_compile(checkout):
    """As in an editable install, whose library lies in the checkout."""
    old = checkout.folder / checkout.library
    old.write_bytes(b"old")
    checkout.setup("build_ext", "--inplace")
    assert not old.exists()


def test_where_it_is_required_a_library_that_does_not_compile_is_an_error(checkout):
    finished = checkout.setup("build_ext", "--inplace", NNUNETV2_LIGHTM_REQUIRE_COMPILED="1")
    assert finished.returncode != 0
    assert "no-compiler" in finished.stdout + finished.stderr

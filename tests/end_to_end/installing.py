"""Virtual environments in which the package is installed and removed, and what it is built from.

Shared by the tests of the installation and by compat.py, so it needs the standard library alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

DISTRIBUTION = "nnunetv2-lightm"
# What leads to our trainers, or chooses among our backends: a user has none of it.
OUR_VARIABLES = ("nnUNet_extTrainer", "NNUNETV2_LIGHTM_AUTOLOAD", "NNUNETV2_LIGHTM_BACKEND", "PYTHONPATH")


def copy_checkout(repository: Path, target: Path) -> Path:
    """Copy what the package is built from: building leaves files next to setup.py."""
    left_out = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "tests", "benchmarks", "*.so")
    shutil.copytree(repository, target, ignore=left_out)
    return target


def no_compiler(folder: Path) -> dict[str, str]:
    """Variables that name compilers which are not there, and let it pass; folder: an existing one."""
    compilers = dict.fromkeys(("CC", "CXX", "LDSHARED", "LDCXXSHARED"), str(folder / "no-compiler"))
    return compilers | {"NNUNETV2_LIGHTM_REQUIRE_COMPILED": "0"}


class CheckFailed(AssertionError):
    """What was tried did not work; the last line says why."""


class Environment:
    """A virtual environment that is there, and a place to run from.

    Attributes:
        root: The virtual environment.
        elsewhere: Working directory of what runs, in which nothing of ours lies.
        python: Its interpreter.
        site_packages: Where pip installs.
        before: What the user of this class noted as the files before the package went in.
    """

    def __init__(self, folder: Path) -> None:
        """folder: holds the environment in "venv"."""
        self.before: set[str] = set()
        self.root, self.elsewhere = folder / "venv", folder / "elsewhere"
        self.elsewhere.mkdir(exist_ok=True)
        self.python = self.root / ("Scripts" if os.name == "nt" else "bin") / "python"
        (site_packages,) = self.python_says("import sysconfig; print(sysconfig.get_path('purelib'))")
        self.site_packages = Path(site_packages)

    def run(
        self, *arguments: str | Path, check: bool = True, timeout: float | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run Python from elsewhere, with none of the variables that lead to us but those given."""
        return self._run([self.python, *arguments], check, timeout, variables)

    def command(
        self, name: str, *arguments: str | Path, check: bool = True, timeout: float | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run an installed command in the same way."""
        program = self.python.with_name(name + (".exe" if os.name == "nt" else ""))
        return self._run([program, *arguments], check, timeout, variables)

    def _run(self, command, check, timeout, variables) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name not in OUR_VARIABLES} | variables
        finished = subprocess.run(
            command,
            cwd=self.elsewhere,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        if check and finished.returncode:
            raise CheckFailed(finished.stdout + finished.stderr)
        return finished

    def python_says(self, script: str, *options: str, **variables: str) -> list[str]:
        finished = self.run(*options, "-c", script, **variables)
        if finished.stderr:
            raise CheckFailed(finished.stderr)
        return finished.stdout.splitlines()

    def pip(self, *arguments: str | Path, timeout: float | None = None, **variables: str) -> None:
        self.run("-m", "pip", "--disable-pip-version-check", *arguments, timeout=timeout, **variables)

    def files(self) -> set[str]:
        """All files of the virtual environment."""
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*") if not path.is_dir()}

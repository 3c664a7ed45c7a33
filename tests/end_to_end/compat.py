"""Installs the package for real, with its dependencies, into clean environments: `make compat`.

    python tests/end_to_end/compat.py                       everything in a temporary folder, removed at the end
    python tests/end_to_end/compat.py --folder FOLDER       keeps the environments there and uses them again
    python tests/end_to_end/compat.py --python 3.11 3.12    these instead of the oldest and the newest there is
    python tests/end_to_end/compat.py --wheels dist         also what `make wheels` built, without a compiler

For each Python an environment, and for each nnunetv2 in it two of the four installs, wheel or editable, with or without
the compiled library, so that every two of the choices occur together. Each install is tried: doctor, backends, and in a
fresh process the stock look-up of trainers and training steps; then it is taken out again, and no file may be left. An
environment takes some 7 GB while it is there; pip downloads most of it if its cache has it not.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from installing import DISTRIBUTION, CheckFailed, Environment, copy_checkout, no_compiler

ROOT = Path(__file__).resolve().parents[2]
NNUNETV2 = ("2.8.0", "2.8.1")
NNUNET_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
PIP_TIMEOUT_SECONDS = 20 * 60
CHECK_TIMEOUT_SECONDS = 5 * 60
NOT_CHECKED = "not checked"
WHEEL, EDITABLE, INDEX = "wheel", "editable", "index"
# What a training needs, in a fresh process in which nothing leads to us but the installation.
TRAINING_STEP = """
import json, sys
from importlib.metadata import version
import torch
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find
names = ("nnUNetTrainerLightMUNet", "nnUNetTrainerLightMUNetPaperSGD_2epochs", "nnUNetTrainer_2epochs_3iters")
for name in names:
    trainer = find(name)
    assert trainer.__name__ == name and trainer.__module__.startswith("nnunetv2_lightm."), trainer
from nnunetv2_lightm import LightMUNet
torch.manual_seed(0)
network = LightMUNet(1, 3, spatial_dims=3)
optimizer = torch.optim.AdamW(network.parameters())
image, target = torch.randn(1, 1, 16, 16, 16), torch.randint(0, 3, (1, 16, 16, 16))
losses = []
for _ in range(3):
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(network(image), target)
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[2] < losses[0], losses
print(json.dumps({"nnunetv2": version("nnunetv2"), "torch": version("torch"), "python": sys.version.split()[0]}))
"""


@dataclass(frozen=True)
class Install:
    """How the package gets into an environment.

    Attributes:
        kind: WHEEL, EDITABLE, or INDEX: a folder of finished wheels, of which pip takes the one for this platform.
        compiled: Whether it has the compiled library.
    """

    kind: str
    compiled: bool

    def __str__(self) -> str:
        return f"{self.kind}, {'compiled' if self.compiled else 'not compiled'}"


@dataclass(frozen=True)
class Row:
    """A line of the table; ``result`` is "passed", or says what failed or why it was not checked."""

    environment: str
    versions: str
    result: str
    seconds: float


def main(argv: list[str] | None = None) -> int:
    """Returns: 0 all that could be had passed, 1 something failed or nothing could be had."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="holds the environments, and is kept")
    parser.add_argument("--python", nargs="+", metavar="VERSION", help="such as 3.11")
    parser.add_argument("--nnunetv2", nargs="+", metavar="VERSION", default=NNUNETV2, help="default: all supported")
    parser.add_argument("--wheels", type=Path, metavar="FOLDER", help="of finished wheels, such as dist")
    arguments = parser.parse_args(argv)
    interpreters = find_interpreters(supported_pythons(), arguments.python)
    folder = (arguments.folder or Path(tempfile.mkdtemp(prefix="compat-"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    print(f"environments: {folder}", flush=True)
    try:
        rows = list(check_all(interpreters, folder, arguments.nnunetv2, arguments.wheels))
    finally:
        if not arguments.folder:
            shutil.rmtree(folder)
    print("\n" + table(rows))
    failed = [row for row in rows if row.result != "passed" and not row.result.startswith(NOT_CHECKED)]
    return 1 if failed or not any(row.result == "passed" for row in rows) else 0


def check_all(
    interpreters: dict[str, Path], folder: Path, versions: Sequence[str], wheels: Path | None
) -> Iterator[Row]:
    """The rows, each as soon as it is known."""
    sources = Sources(folder, wheels)
    for p, (version, interpreter) in enumerate(interpreters.items()):
        for n, nnunetv2 in enumerate(versions):
            where = f"Python {version}, nnunetv2 {nnunetv2}"
            begin = time.monotonic()
            try:
                environment = make_environment(folder / f"python{version}", interpreter, nnunetv2)
            except (CheckFailed, subprocess.SubprocessError) as error:
                result = f"{NOT_CHECKED}: the environment cannot be had: {last_line(error)}"
                yield announce(Row(where, "", result, time.monotonic() - begin))
                continue
            print(f"{where}: environment ready, {time.monotonic() - begin:.0f} s", flush=True)
            for install in [*installs(p + n), *([Install(INDEX, compiled=True)] if wheels else [])]:
                yield announce(check(where, environment, sources, install))


def installs(turn: int) -> tuple[Install, Install]:
    """Two opposite installs; the other two at the next turn."""
    compiled_wheel = turn % 2 == 0
    return Install(WHEEL, compiled=compiled_wheel), Install(EDITABLE, compiled=not compiled_wheel)


def make_environment(folder: Path, interpreter: Path, nnunetv2: str) -> Environment:
    """An environment with that nnunetv2 and all that our package needs, without it; one that is there is used again."""
    if not (folder / "venv").exists():
        folder.mkdir(exist_ok=True)
        subprocess.run([interpreter, "-m", "venv", folder / "venv"], check=True, capture_output=True, text=True)
    environment = Environment(folder)
    environment.pip("install", *dependencies(), f"nnunetv2=={nnunetv2}", timeout=PIP_TIMEOUT_SECONDS)
    for name in NNUNET_FOLDERS:
        (folder / name).mkdir(exist_ok=True)
    return environment


def check(where: str, environment: Environment, sources: Sources, install: Install) -> Row:
    """Install, try, take out again."""
    begin, versions = time.monotonic(), {}
    name = f"{where}, {install}"
    try:
        missing = sources.why_not(install)
        if missing:
            return Row(name, "", f"{NOT_CHECKED}: {missing}", time.monotonic() - begin)
        # A check that failed, or a run that was interrupted, may have left it.
        environment.pip("uninstall", "--yes", DISTRIBUTION)
        before = environment.files()
        environment.pip("install", *sources.arguments(install), **sources.variables(install))
        environment.pip("check")
        doctor(environment, install)
        backends(environment, install)
        printed = environment.run("-c", TRAINING_STEP, timeout=CHECK_TIMEOUT_SECONDS).stdout
        versions = json.loads(printed.splitlines()[-1])  # after what nnU-Net says when it is imported
        environment.pip("uninstall", "--yes", DISTRIBUTION)
        traces = sorted(before ^ environment.files())
        if traces:
            raise CheckFailed(f"the uninstallation left or took {len(traces)} files, such as {traces[0]}")
        result = "passed"
    except (CheckFailed, subprocess.SubprocessError) as error:
        print(error, file=sys.stderr)
        result = f"FAILED: {last_line(error)}"
    return Row(name, ", ".join(f"{key} {value}" for key, value in versions.items()), result, time.monotonic() - begin)


def doctor(environment: Environment, install: Install) -> None:
    """Training can start: the exit code is 0. It says which wheel is installed."""
    folders = {
        name: str(environment.root.parent / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    }
    said = command(environment, "doctor", "--json", **folders)
    (ours,) = (found for found in json.loads(said)["findings"] if found["subject"] == DISTRIBUTION)
    expected = "editable install" if install.kind == EDITABLE else f"wheel {wheel_tag(environment)} from"
    if expected not in ours["message"]:
        raise CheckFailed(f"doctor does not say `{expected}` but: {ours['message']}")


def backends(environment: Environment, install: Install) -> None:
    """On the CPU the compiled scan runs where there is one, otherwise the one in PyTorch."""
    lines = [line.split() for line in command(environment, "backends").splitlines()]
    selected = [line[1] for line in lines if line[:1] == ["*"] and line[2] == "cpu"]
    expected = "cpu_native" if install.compiled else "torch_chunked"
    if selected != [expected]:
        raise CheckFailed(f"the backend on the CPU is {selected}, expected {expected}")


def wheel_tag(environment: Environment) -> str:
    """As the installed files have it."""
    (metadata,) = environment.site_packages.glob("nnunetv2_lightm-*.dist-info/WHEEL")
    (tag,) = (line for line in metadata.read_text(encoding="utf-8").splitlines() if line.startswith("Tag: "))
    return tag.removeprefix("Tag: ")


def command(environment: Environment, *arguments: str, **variables: str) -> str:
    """What our installed command prints."""
    return environment.command("nnUNetv2_lightm", *arguments, timeout=CHECK_TIMEOUT_SECONDS, **variables).stdout


class Sources:
    """What is installed: a wheel and a checkout, each with and without the compiled library, made when asked for."""

    def __init__(self, folder: Path, wheels: Path | None) -> None:
        self.folder, self.wheels = folder / "sources", wheels.absolute() if wheels else None
        if self.folder.exists():
            shutil.rmtree(self.folder)  # the checkout may have changed since
        self.folder.mkdir()

    def why_not(self, install: Install) -> str | None:
        """Why an install cannot be made here; None: it can."""
        built = compiles(self.wheel(compiled=True)) if install.compiled and install.kind != INDEX else True
        return None if built else "the compiled library was not built: no C++17 compiler (GCC or Clang)"

    def arguments(self, install: Install) -> Sequence[str | Path]:
        """For `pip install`."""
        if install.kind == INDEX:
            # nnU-Net wants argparse, which is in Python and which pip never counts as installed: without an index it
            # would stop there. `pip check` looks at what is needed instead.
            return ("--no-index", "--no-deps", "--find-links", self.wheels, DISTRIBUTION)
        if install.kind == EDITABLE:
            return ("--editable", self.checkout(install.compiled))
        return (self.wheel(install.compiled),)

    def variables(self, install: Install) -> dict[str, str]:
        """Variables of the installation."""
        return {} if install.compiled and install.kind != INDEX else no_compiler(self.folder)

    def checkout(self, compiled: bool) -> Path:
        target = self.folder / ("compiled" if compiled else "not_compiled")
        return target if target.exists() else copy_checkout(ROOT, target)

    def wheel(self, compiled: bool) -> Path:
        """One wheel for every Python: its tag is py3-none."""
        target = self.folder / ("wheel_compiled" if compiled else "wheel_not_compiled")
        if not target.exists():
            checkout = copy_checkout(ROOT, self.folder / f"of_{target.name}")
            environment = os.environ | ({} if compiled else no_compiler(self.folder))
            build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", target, checkout]
            subprocess.run(build, check=True, capture_output=True, text=True, env=environment)
        (wheel,) = target.glob("*.whl")
        return wheel


def compiles(wheel: Path) -> bool:
    return any(name.startswith("nnunetv2_lightm/ops/_native.") for name in zipfile.ZipFile(wheel).namelist())


def dependencies() -> list[str]:
    """What pyproject.toml says that the package needs; pip leaves it when the package goes."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (block,) = re.findall(r"^dependencies = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    return re.findall(r'^ *"([^"]+)",', block, re.MULTILINE)


def supported_pythons() -> list[str]:
    """Minor versions that pyproject.toml allows, oldest first."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    least, beyond = re.search(r'^requires-python = ">=3\.(\d+),<3\.(\d+)"$', text, re.MULTILINE).groups()
    return [f"3.{minor}" for minor in range(int(least), int(beyond))]


def find_interpreters(supported: Sequence[str], wanted: Sequence[str] | None) -> dict[str, Path]:
    """Version to interpreter: those wanted, else the oldest and the newest there is; prints which are missing."""
    found = {version: path for version in supported if (path := find_interpreter(version))}
    missing = [version for version in wanted or supported if version not in found]
    if missing:
        print(f"not on this machine, as python3.X on the PATH or in pyenv: Python {', '.join(missing)}", flush=True)
    chosen = wanted or list(dict.fromkeys([*list(found)[:1], *list(found)[-1:]]))
    return {version: found[version] for version in chosen if version in found}


def find_interpreter(version: str) -> Path | None:
    """The first that runs: this one, one on the PATH, one of pyenv's (whose shim need not run)."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [
        sys.executable,
        shutil.which(f"python{version}"),
        *sorted(pyenv.glob(f"versions/{version}.*/bin/python")),
    ]
    script = "import ensurepip, sys; print('.'.join(map(str, sys.version_info[:2])))"
    for candidate in filter(None, candidates):
        finished = subprocess.run([candidate, "-c", script], capture_output=True, text=True, check=False)
        if finished.returncode == 0 and finished.stdout.strip() == version:
            return Path(candidate)
    return None


def last_line(error: BaseException) -> str:
    """Of an error, or of what a command that failed wrote."""
    text = getattr(error, "stderr", None) or str(error)
    lines = [line for line in str(text).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


def announce(row: Row) -> Row:
    print(f"{row.environment}: {row.result}, {row.seconds:.0f} s", flush=True)
    return row


def table(rows: Sequence[Row]) -> str:
    cells = [("environment", "versions", "result", "seconds")]
    cells += [(row.environment, row.versions, row.result, f"{row.seconds:.0f}") for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells)


if __name__ == "__main__":
    sys.exit(main())

"""Builds what is uploaded, and checks it: of nnunetv2-lightm and of lightm-runtime the source distribution and a wheel
for each platform, and of nnunetv2-lightm, which works without its compiled library, one for all others.

    python -m release.wheels [--only TAG ...]      into dist/, which is emptied first

Every wheel is built from the unpacked source distribution, so that a distribution that lacks a file is noticed. Needs
the extra `release`.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from native_build import ROOT

from .libraries import build
from .platforms import PLATFORMS, Platform, platform
from .products import PRODUCTS, Product

DIST = ROOT / "dist"
PURE = "any"
LIBRARY_ENDINGS = {".so", ".dylib", ".dll"}
# Read by setup.py.
LIBRARY_VARIABLE = "NNUNETV2_LIGHTM_BUILD_LIBRARY"
PLATFORM_VARIABLE = "NNUNETV2_LIGHTM_BUILD_PLATFORM"


class WheelError(RuntimeError):
    """What was built cannot be given to users."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="TAG", help=f"these platforms; {PURE}: the one for all others")
    chosen = parser.parse_args(argv).only
    targets = [platform(tag) for tag in chosen if tag != PURE] if chosen else PLATFORMS
    shutil.rmtree(DIST, ignore_errors=True)
    for product in PRODUCTS:
        source = source_distribution(product)
        for target in targets:
            check_wheel(build_wheel(source, target.tag, build(target, product)), product, target)
        if product.runs_without and (not chosen or PURE in chosen):
            check_wheel(build_wheel(source, PURE, None), product, None)
    check_with_tools()
    for path in sorted(DIST.iterdir()):
        print(f"{path.stat().st_size / 1e6:6.2f} MB  {path.relative_to(ROOT)}")
    return 0


def source_distribution(product: Product) -> Path:
    run("-m", "build", "--sdist", "--no-isolation", "--outdir", DIST, product.folder)
    (source,) = DIST.glob(f"{product.file_stem}*.tar.gz")
    check_source(source)
    return source


def check_source(source: Path, root: Path = ROOT) -> None:
    """Raises: WheelError: if a file in it names this checkout, which is nowhere else."""
    with tarfile.open(source) as archive:
        files = [member for member in archive if member.isfile()]
        named = [file.name for file in files if f"{root}{os.sep}".encode() in archive.extractfile(file).read()]
    if named:
        raise WheelError(f"{source.name} has paths of this machine, below {root}, in {', '.join(named)}")


def build_wheel(source: Path, tag: str, library: Path | None) -> Path:
    """Build a wheel from the source distribution, unpacked anew: setuptools would keep another one's library."""
    before = set(DIST.glob("*.whl"))
    given = {PLATFORM_VARIABLE: tag} | ({LIBRARY_VARIABLE: str(library)} if library else {})
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(source) as archive:
            archive.extractall(folder, filter="data")
        (unpacked,) = Path(folder).iterdir()
        run("-m", "build", "--wheel", "--no-isolation", "--outdir", DIST, unpacked, **given)
    (wheel,) = set(DIST.glob("*.whl")) - before
    return wheel


def check_wheel(wheel: Path, product: Product, target: Platform | None) -> None:
    """Name, tag and content. Raises: WheelError: naming the wheel and what is wrong with it."""
    tag = f"py3-none-{target.tag if target else PURE}"
    if not wheel.name.endswith(f"-{tag}.whl"):
        raise WheelError(f"{wheel.name} has another tag than {tag}")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/WHEEL"))
        if f"Tag: {tag}" not in archive.read(metadata).decode().splitlines():
            raise WheelError(f"{wheel.name} names another tag than {tag} inside, in {metadata}")
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in names):
        raise WheelError(f"{wheel.name} has no licence: license-files in pyproject.toml names it")
    libraries = [name for name in names if Path(name).suffix in LIBRARY_ENDINGS]
    expected = [f"{product.package}/{product.library_name(target.system)}"] if target else []
    if libraries != expected:
        raise WheelError(f"{wheel.name} holds {libraries}, expected {expected}")
    if target and target.system == "linux":
        check_manylinux(wheel, target)


def check_manylinux(wheel: Path, target: Platform) -> None:
    """auditwheel must find no need for a newer system than the tag promises."""
    said = run("-m", "auditwheel", "show", wheel)
    found = re.search(r'following platform\s+tag:\s+"(?:manylinux_(\d+)_(\d+)|(linux))', said)
    if not found or found[3] or (int(found[1]), int(found[2])) > (2, 17):
        raise WheelError(f"{wheel.name} does not fit {target.tag}: {said}")


def check_with_tools() -> None:
    """Check that the metadata suit the package index and that no wheel holds stray files."""
    run("-m", "twine", "check", "--strict", *sorted(DIST.iterdir()))
    run("-m", "check_wheel_contents", "--config", ROOT / "pyproject.toml", *sorted(DIST.glob("*.whl")))


def run(*arguments: str | Path, **variables: str) -> str:
    """What a program of this Python prints. Raises: WheelError: with that, if it fails."""
    finished = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=tempfile.gettempdir(),  # the checkout's folders have the names of modules: build
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise WheelError(f"{' '.join(map(str, arguments))}\n{finished.stdout}\n{finished.stderr}")
    return finished.stdout


if __name__ == "__main__":
    try:
        sys.exit(main())
    except WheelError as error:
        sys.exit(f"wheels: {error}")

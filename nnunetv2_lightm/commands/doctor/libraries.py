"""Checks that nnunetv2 has a supported version, and that torch, torchvision and timm match it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from ...installation import DISTRIBUTION, PIP, reinstall_command
from .finding import Finding, fail, note, ok


def check_nnunetv2(outcomes: dict[str, object]) -> list[Finding]:
    """Whether the installed nnunetv2 is in the range our metadata asks for, and is the one Python imports."""
    subject = "nnunetv2"
    needed = _requirement(DISTRIBUTION, "nnunetv2")
    if needed is None:
        return [fail(subject, f"{DISTRIBUTION} itself is not installed in this Python", reinstall_command())]
    reinstall = f'{PIP} "{needed}"'
    installed = _version("nnunetv2")
    if installed is None:
        return [fail(subject, "not installed", reinstall)]
    if not needed.specifier.contains(installed, prereleases=True):
        message = f"{installed} is installed, {needed.specifier} is needed"
        if Version(installed) < Version("2.8"):
            message += "; forks of nnU-Net (LightM-UNet, U-Mamba) install themselves as such an old nnunetv2"
        return [fail(subject, message, reinstall)]
    outcome = outcomes["nnunetv2"]
    if "error" in outcome:
        return [fail(subject, f"{installed} cannot be imported: {outcome['error']}", f"{reinstall} --force-reinstall")]
    path, expected = outcome["path"], _installed_path("nnunetv2")
    if expected is not None and not Path(path).samefile(expected):
        return [note(subject, f"{installed} is installed in {expected}, but Python takes another one from {path}")]
    return [ok(subject, f"{installed}, needed {needed.specifier}")]


def check_torch(outcomes: dict[str, object]) -> list[Finding]:
    """Whether torch, torchvision and timm can be imported together; nnU-Net's trainer search imports all three."""
    subject = "torch"
    versions = {name: _version(name) for name in ("torch", "torchvision", "timm")}
    missing = [name for name, installed in versions.items() if installed is None]
    if missing:
        return [fail(subject, f"not installed: {', '.join(missing)}", f"{PIP} {' '.join(missing)}")]
    unfit = _unfit_torch("nnunetv2", versions["torch"]) or _torchvision_mismatch(versions, outcomes)
    unfit = unfit or _unfit_torch(DISTRIBUTION, versions["torch"])
    if unfit is not None:
        return [unfit]
    for name in versions:
        error = outcomes[name].get("error")
        if error is not None:
            remedy = f'{PIP} --force-reinstall --no-deps "{name}=={versions[name]}"'
            return [fail(subject, f"{name} {versions[name]} cannot be imported: {error}", remedy)]
    return [ok(subject, ", ".join(f"{name} {installed}" for name, installed in versions.items()) + " agree")]


def check_device(outcomes: dict[str, object]) -> list[Finding]:
    """Which devices torch sees: nnU-Net's commands use CUDA by default."""
    devices = outcomes["devices"]
    if not isinstance(devices, list):
        return []
    if "cuda" in devices:
        return [ok("device", "CUDA")]
    other = devices[-1]
    advice = f"add `-device {other}` to nnUNetv2_train and nnUNetv2_predict"
    return [note("device", f"torch sees no CUDA device, only {', '.join(devices)}: {advice}")]


def _unfit_torch(owner: str, installed: str) -> Finding | None:
    wanted = _requirement(owner, "torch")
    if wanted is None or wanted.specifier.contains(installed, prereleases=True):
        return None
    message = f"torch {installed} is installed, but {owner} asks for torch {wanted.specifier}"
    return fail("torch", message, f'{PIP} "{wanted}" torchvision --upgrade')


def _torchvision_mismatch(versions: dict[str, str], outcomes: dict[str, object]) -> Finding | None:
    wanted = _requirement("torchvision", "torch")
    error = outcomes["torchvision"].get("error", "")
    disagree = wanted is not None and not wanted.specifier.contains(versions["torch"], prereleases=True)
    # How a torchvision built for another torch fails: operators not registered, or a library that cannot be linked.
    broken = any(sign in error for sign in ("torchvision::", "undefined symbol", "torchvision/_C", "Symbol not found"))
    if not (disagree or broken):
        return None
    message = f"torchvision {versions['torchvision']} does not match torch {versions['torch']}, so every -tr fails"
    reason = error or f"it asks for torch {wanted.specifier}"
    torch = Version(versions["torch"])
    # torchvision 0.(N + 15) belongs to torch 2.N.
    match = f'"torchvision==0.{torch.minor + 15}.*"' if torch.major == 2 else "torchvision"
    remedy = f"{PIP} --force-reinstall --no-deps {match}   # from the index that torch came from"
    return fail("torch", f"{message} ({reason})", remedy)


def _requirement(distribution_name: str, dependency: str) -> Requirement | None:
    try:
        lines = requires(distribution_name) or []
    except PackageNotFoundError:
        return None
    requirements = (Requirement(line) for line in lines)
    return next((needed for needed in requirements if needed.name == dependency and needed.marker is None), None)


def _version(distribution_name: str) -> str | None:
    try:
        return version(distribution_name)
    except PackageNotFoundError:
        return None


def _installed_path(package: str) -> Path | None:
    """Where pip put the package; None for an editable install, which lists no files."""
    files = distribution(package).files or []
    init = next((file for file in files if file.parts == (package, "__init__.py")), None)
    return None if init is None else Path(init.locate()).parent

"""How this package was installed, and the command that installs it again in the same way."""

from __future__ import annotations

import json
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from .escaping import escape_shell

DISTRIBUTION = "nnunetv2-lightm"
PIP = "python -m pip install"
ROOT = Path(__file__).resolve().parent.parent


def describe() -> str:
    """Version, kind and origin, e.g. ``0.1.0, wheel py3-none-win_amd64 from a package index``."""
    installed = _installed()
    if installed is None:
        return f"not installed, imported from {ROOT}"
    url, info = _origin(installed)
    if info.get("dir_info", {}).get("editable"):
        return f"{installed.version}, editable install of {_path(url)}"
    tags = [line.split(": ")[1] for line in (installed.read_text("WHEEL") or "").splitlines() if line.startswith("Tag")]
    return f"{installed.version}, wheel {' '.join(tags)} from {_path(url) if url else 'a package index'}"


def reinstall_command() -> str:
    """The command, to be run in the Python that the package belongs to."""
    installed = _installed()
    if installed is None:
        return f"{PIP} --editable {escape_shell(ROOT)}"
    url, info = _origin(installed)
    if info.get("dir_info", {}).get("editable"):
        return f"{PIP} --no-deps --editable {escape_shell(_path(url))}"
    again = f"{PIP} --force-reinstall --no-deps --no-cache-dir"
    if not url:
        return f"{again} {DISTRIBUTION}=={installed.version}   # with the --index-url or --find-links of the first time"
    return f"{again} {escape_shell(_source(url, info))}"


def _source(url: str, info: dict) -> str:
    """What pip was given, with the revision if it came from version control: the one asked for, or the one it got."""
    source = _path(url)
    if "vcs_info" in info:
        vcs = info["vcs_info"]
        source = f"{vcs['vcs']}+{url}@{vcs.get('requested_revision') or vcs['commit_id']}"
    subdirectory = info.get("subdirectory")
    return f"{source}#subdirectory={subdirectory}" if subdirectory else source


def _installed() -> Distribution | None:
    try:
        return distribution(DISTRIBUTION)
    except PackageNotFoundError:
        return None


def _origin(installed: Distribution) -> tuple[str, dict]:
    """URL that pip installed from, "" if it was an index, and what else pip noted about it (PEP 610)."""
    info = json.loads(installed.read_text("direct_url.json") or "{}")
    return info.get("url", ""), info


def _path(url: str) -> str:
    """The path of a file URL; other URLs as they are."""
    parts = urlsplit(url)
    host = f"//{parts.netloc}" if parts.netloc not in ("", "localhost") else ""  # a Windows share
    return url2pathname(host + parts.path) if parts.scheme == "file" else url

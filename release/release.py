"""Everything before a release: `make release`. Uploads nothing, tags nothing; prints the commands that do.

    python -m release.release [--unfinished]

1. The version of pyproject.toml heads the changelog, with a date, and is that of runtime/pyproject.toml and of
   CITATION.cff; nothing is uncommitted; no tag has that version; the links of both readmes work on the package index.
2. The source distribution and all wheels are built and checked (release/wheels.py).
3. The libraries in them compute what they should, on every platform that can be run here (release/prove.py).

--unfinished skips the first step, to try the others. What is built here is not uploaded: .github/workflows/wheels.yml
builds again from the tag, tries the files on Linux, macOS and Windows, and uploads those.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

from native_build import ROOT

from . import pages, prove, wheels

NEXT = """
To publish {version}:
  git tag v{version} && git push origin v{version}

The workflow "wheels" (.github/workflows/wheels.yml) then builds the distributions from the tag, installs and tries them
on Linux, macOS and Windows and, if all of that passes, uploads the same files in its job "publish". Before the first
release, give each project on the package index a trusted publisher: this repository, workflow wheels.yml, environment
pypi for nnunetv2-lightm and pypi-lightm-runtime for lightm-runtime."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unfinished", action="store_true", help="skip the checks of version and changelog")
    unfinished = parser.parse_args(argv).unfinished
    faults = [] if unfinished else all_faults(ROOT)
    if faults:
        print("\n".join(f"release: {fault}" for fault in faults), file=sys.stderr)
        return 1
    if wheels.main([]) or (not unfinished and pages.main()) or prove.main([]):
        return 1
    print(NEXT.format(version=version_of(ROOT)))
    return 0


def all_faults(root: Path) -> list[str]:
    """What forbids a release, before anything is built."""
    return [*faults_of_version(root), *faults_of_repository(root), *pages.faults(pages.to_be_built(root))]


def version_of(root: Path) -> str:
    """The one place that sets it."""
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    return re.search(r'^version = "(.+)"$', text, re.MULTILINE)[1]


def faults_of_version(root: Path) -> list[str]:
    """What does not agree with the version in pyproject.toml."""
    version, faults = version_of(root), []
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[(.+?)\](.*)$", changelog, re.MULTILINE)
    newest, rest = next(((name, rest) for name, rest in headings if name != "Unreleased"), (None, ""))
    if newest != version:
        faults.append(f"CHANGELOG.md's newest version is {newest}; expected a line `## [{version}] - YYYY-MM-DD`")
    elif not re.fullmatch(r" - \d{4}-\d\d-\d\d", rest):
        faults.append(f"CHANGELOG.md gives {version} no date: `## [{version}] - YYYY-MM-DD`")
    unreleased = changelog.partition("## [Unreleased]")[2].partition("\n## [")[0]
    if re.search(r"^- ", unreleased, re.MULTILINE):
        faults.append(f"CHANGELOG.md has entries under Unreleased: move them to {version}")
    for name in ("CITATION.cff", "runtime/pyproject.toml"):
        found = re.search(r"^version *[:=] *[\"']?([^\"'\n]+)", (root / name).read_text(encoding="utf-8"), re.MULTILINE)
        said = found[1].strip() if found else "missing"
        if said != version:
            faults.append(f"{name}'s version is {said}, pyproject.toml's {version}")
    return faults


def faults_of_repository(root: Path) -> list[str]:
    """Uncommitted changes, and a tag that is there already."""
    faults = []
    if _git(root, "status", "--porcelain"):
        faults.append("there are uncommitted changes: commit them, a release is built from what is committed")
    tag = f"v{version_of(root)}"
    if _git(root, "tag", "--list", tag):
        faults.append(f"the tag {tag} exists: raise the version in pyproject.toml")
    return faults


def _git(root: Path, *arguments: str) -> str:
    finished = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    return finished.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())

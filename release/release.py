"""Everything before an upload: `make release`. Uploads nothing, tags nothing; prints the commands that do.

    python -m release.release [--unfinished]

1. The version of pyproject.toml heads the changelog, with a date, and is that of runtime/pyproject.toml and of
   CITATION.cff; nothing is uncommitted; no tag has that version.
2. The source distribution and all wheels are built and checked (release/wheels.py).
3. The libraries in them compute what they should, on every platform that can be run here (release/prove.py).

--unfinished skips the first step, to try the others.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

from native_build import ROOT

from . import prove, wheels


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unfinished", action="store_true", help="skip the checks of version and changelog")
    unfinished = parser.parse_args(argv).unfinished
    faults = [] if unfinished else [*faults_of_version(ROOT), *faults_of_repository(ROOT)]
    if faults:
        print("\n".join(f"release: {fault}" for fault in faults), file=sys.stderr)
        return 1
    if wheels.main([]) or prove.main([]):
        return 1
    version = version_of(ROOT)
    print(f"\nTo publish {version}:\n  git tag v{version} && git push origin v{version}\n  twine upload dist/*")
    return 0


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

"""Refuses pages for the package index whose links would lead nowhere.

    python -m release.pages

Looks at the metadata of the wheels in dist/, which `make wheels` builds.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

from native_build import ROOT
from project_page import long_description, relative_targets

from .products import PRODUCTS

DIST = ROOT / "dist"


def main() -> int:
    found = faults(built(DIST))
    print("\n".join(f"pages: {fault}" for fault in found), file=sys.stderr, end="\n" if found else "")
    return 1 if found else 0


def faults(pages: dict[str, str]) -> list[str]:
    """What is wrong with pages, by distribution."""
    relative = {name: targets for name, text in pages.items() if (targets := relative_targets(text))}
    return [
        f"the page of {name} would have {len(targets)} links that lead nowhere on the package index, such as "
        f"{targets[0]}. Name the public address of the repository in its pyproject.toml, and they will lead there: "
        '[project.urls] Repository = "https://..."'
        for name, targets in relative.items()
    ]


def to_be_built(root: Path) -> dict[str, str]:
    """The pages that setup.py will write."""
    places = {product.distribution: product.folder.relative_to(ROOT) for product in PRODUCTS}
    return {name: long_description(root / place, place.as_posix()) for name, place in places.items()}


def built(dist: Path) -> dict[str, str]:
    """The pages in wheels' metadata; those of a distribution are the same in all of its wheels."""
    pages = {}
    for wheel in sorted(dist.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            pages[wheel.name.partition("-")[0]] = archive.read(metadata).decode().partition("\n\n")[2]
    if not pages:
        raise FileNotFoundError(f"no wheels in {dist}: `make wheels` builds them")
    return pages


if __name__ == "__main__":
    try:
        sys.exit(main())
    except FileNotFoundError as error:
        sys.exit(f"pages: {error}")

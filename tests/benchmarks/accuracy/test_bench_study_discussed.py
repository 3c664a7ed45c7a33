"""What docs/study/README.md says about a comparison is in the report of that comparison."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

STUDY = Path(__file__).resolve().parents[3] / "docs/study"
DECIMAL = r"[-+]?\d+\.\d+(?:e-\d+)?"
LINK = r"report\.md#(comparison-\d+)"


def paragraphs_with_scores() -> list[str]:
    """Those of "What it shows"."""
    text = (STUDY / "README.md").read_text(encoding="utf-8")
    section = text.split("\n## What it shows\n")[1].split("\n## ")[0]
    paragraphs = [paragraph.strip() for paragraph in section.split("\n\n")]
    return [paragraph for paragraph in paragraphs if re.search(DECIMAL, paragraph)]


@pytest.mark.parametrize("paragraph", paragraphs_with_scores(), ids=lambda paragraph: paragraph[:40])
def test_decimals_are_in_the_comparisons_that_the_paragraph_links(paragraph):
    linked = set(re.findall(LINK, paragraph))
    assert linked, "a paragraph with scores links the comparison that they are from"
    reported = [number for name in linked for number in re.findall(DECIMAL, comparisons()[name])]
    unknown = [number for number in re.findall(DECIMAL, paragraph) if not any(equal(number, r) for r in reported)]
    assert not unknown


def comparisons() -> dict[str, str]:
    """The sections of the report."""
    report = (STUDY / "report.md").read_text(encoding="utf-8")
    _, *parts = re.split(r'<a id="(comparison-\d+)"></a>', report)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def equal(said: str, reported: str) -> bool:
    """Whether a reported number is the one that is said, with as many decimals or rounded to them. What is said without
    a sign ("2.53 points less") is so much of either."""
    if "e" in said or "e" in reported:
        return said == reported
    signed = said[0] in "+-"
    rounded = float(reported) if signed else abs(float(reported))
    return f"{rounded:{'+' if signed else ''}.{len(said.split('.')[1])}f}" == said


def test_sections_are_found():
    assert len(paragraphs_with_scores()) >= 7
    assert len(comparisons()) == 11

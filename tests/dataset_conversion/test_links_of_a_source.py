"""Links in a source: followed, but not round in circles nor to everything there is, and named where they lead out."""

from __future__ import annotations

import json
import os

import pytest

from nnunetv2_lightm.dataset_conversion import Dataset801_LiTS

pytestmark = pytest.mark.skipif(os.name != "posix", reason="makes links")


def convert(source, capsys) -> str:
    """The summary."""
    assert Dataset801_LiTS.main([str(source), "--split", "none", "--workers", "1"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("target", ["/", "..", "../..", "{tmp_path}", "../lits/.."])
def test_a_link_to_what_holds_the_source_is_not_followed(lits, folders, tmp_path, capsys, target):
    lits.add(1)
    lits.add(2, folder="../beside")
    (lits.folder / "link").symlink_to(target.format(tmp_path=tmp_path))
    summary = convert(lits.folder, capsys)
    assert "which holds the source: not followed" in summary
    assert "1 converted" in summary and "beside" not in summary


def test_links_out_are_reported(lits, folders, tmp_path, capsys):
    lits.add(1)
    lits.add(2, folder="../another disk")
    (lits.folder / "more").symlink_to("../another disk")
    summary = convert(lits.folder, capsys)
    line = f"more -> {tmp_path / 'another disk'}"
    assert "Links to folders outside the source (1):" in summary and line in summary and "2 converted" in summary
    report = json.loads((folders.raw / "Dataset801_LiTS" / "conversion_report.json").read_text())
    assert report["links_out"] == [line]


def test_links_inside_are_nothing_to_speak_of(lits, folders, capsys):
    lits.add(1)
    lits.add(2, folder="a")
    (lits.folder / "b").symlink_to("a")
    (lits.folder / "a" / "loop").symlink_to("../a")
    (lits.folder / "self").symlink_to("self")
    summary = convert(lits.folder, capsys)
    assert "2 converted" in summary and "Links" not in summary


def test_two_that_lead_to_one_another(lits, folders, tmp_path, capsys):
    lits.add(1)
    lits.add(2, folder="../other")
    (lits.folder / "there").symlink_to("../other")
    (tmp_path / "other" / "back").symlink_to("../lits")
    assert "2 converted" in convert(lits.folder, capsys)

"""A report replaces an earlier one with its figures, and nothing else."""

from __future__ import annotations

import pytest

from nnunetv2_lightm.benchmark.report import document
from nnunetv2_lightm.benchmark.report.document import write_report
from nnunetv2_lightm.files import RECORD_FILE, NotOursError

from ..make_results import make_results


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["report.md", "report.html", "figures/comparison1_training.png"])
def test_files_of_others_stay(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("of the user")
    before = contents(tmp_path)
    with pytest.raises(NotOursError, match=f"{name} already exists"):
        write_report([make_results(("nnUNetTrainer",))], tmp_path, "T")
    assert contents(tmp_path) == before


def test_an_earlier_report_is_replaced(tmp_path):
    results = make_results(("nnUNetTrainer",))
    write_report([results], tmp_path, "T")
    names = {path.relative_to(tmp_path) for path in contents(tmp_path)}
    assert len(names) > 4
    (tmp_path / "figures" / "mine.png").write_text("of the user")
    write_report([results], tmp_path, "Another title")
    assert "# Another title" in (tmp_path / "report.md").read_text()
    # From a repository, which keeps no record: the earlier report names its figures.
    (tmp_path / "figures" / RECORD_FILE).unlink()
    write_report([results], tmp_path, "T")
    assert (tmp_path / "figures" / "mine.png").read_text() == "of the user"


def write(folder, title):
    write_report([make_results(("nnUNetTrainer",))], folder, title)


def test_what_somebody_has_written_into_a_report_is_kept(tmp_path, capsys):
    write(tmp_path, "T")
    report, picture = tmp_path / "report.md", tmp_path / "figures" / "comparison1_training.png"
    report.write_text(report.read_text() + "\nMy notes.\n")
    picture.write_bytes(b"drawn on")
    write(tmp_path, "Another title")
    assert "My notes" not in report.read_text()
    assert (tmp_path / "kept_report.md").read_text().endswith("\nMy notes.\n")
    assert (
        f"{report} was changed since it was written, or its record is gone; it is now {tmp_path / 'kept_report.md'}"
        in (capsys.readouterr().err)
    )
    assert (tmp_path / "figures" / "kept_comparison1_training.png").read_bytes() == b"drawn on"
    assert picture.read_bytes().startswith(b"\x89PNG")
    write(tmp_path, "T")
    kept = sorted(path.name for path in tmp_path.rglob("kept*"))
    assert kept == ["kept_comparison1_training.png", "kept_report.md"], "an unchanged one is replaced"
    assert capsys.readouterr().err == ""


def test_a_report_without_a_record_is_kept_if_the_new_one_differs(tmp_path):
    """It may have been changed: earlier versions recorded nothing, and repositories keep no record."""
    write(tmp_path, "T")
    (tmp_path / "figures" / RECORD_FILE).unlink()
    write(tmp_path, "T")
    assert not list(tmp_path.rglob("kept*"))
    (tmp_path / "figures" / RECORD_FILE).unlink()
    write(tmp_path, "Another title")
    assert (tmp_path / "kept_report.md").read_text().startswith("# T\n")


@pytest.mark.slow
def test_one_that_was_killed_is_begun_anew(tmp_path, monkeypatch):
    """Its figures are there, and no report names them."""
    results = make_results(("nnUNetTrainer",))
    with monkeypatch.context() as patched:
        patched.setattr(document, "html_page", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_report([results], tmp_path, "T")
    assert list((tmp_path / "figures").glob("*.png")) and not (tmp_path / "report.md").exists()
    write_report([results], tmp_path, "T")

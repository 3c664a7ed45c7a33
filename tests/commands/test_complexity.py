"""The command line of ``nnUNetv2_lightm complexity``; what it reports is tested with the study."""

from __future__ import annotations

import pytest

from nnunetv2_lightm import cli
from nnunetv2_lightm.complexity import paper_report, trainer_report
from nnunetv2_lightm.complexity.errors import PlansError, ThopMissing

TRAINER = ["-tr", "nnUNetTrainer", "-d", "4", "-c", "2d"]


@pytest.fixture
def reports(monkeypatch):
    """Puts reports in the place of the real ones; returns what they were called with."""
    calls = []

    def report(*args, **kwargs):
        calls.append((*args, kwargs))
        return "the report\n"

    monkeypatch.setattr(paper_report, "paper_report", report)
    monkeypatch.setattr(trainer_report, "trainer_report", report)
    return calls


def test_paper(reports, capsys):
    assert cli.main(["complexity", "--paper", "--format", "csv"]) == 0
    assert capsys.readouterr().out == "the report\n"
    assert reports == [("csv", {})]


def test_trainers(reports):
    assert cli.main(["complexity", *TRAINER, "-p", "MyPlans", "-device", "cuda"]) == 0
    assert reports == [(["nnUNetTrainer"], "4", "2d", "MyPlans", {"device": "cuda", "output_format": "markdown"})]


def test_several_trainers_only_counted(reports):
    assert cli.main(["complexity", "-tr", "A", "B", "-d", "4", "-c", "2d", "--count-only"]) == 0
    assert reports == [(["A", "B"], "4", "2d", "nnUNetPlans", {"device": None, "output_format": "markdown"})]


def test_report_into_a_file(reports, tmp_path, capsys):
    file = tmp_path / "new" / "report.md"
    assert cli.main(["complexity", "--paper", "-o", str(file)]) == 0
    assert file.read_text(encoding="utf-8") == "the report\n"
    assert [path.name for path in file.parent.iterdir()] == ["report.md"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "give --paper, or all of -tr, -d and -c"),
        (["-tr", "nnUNetTrainer", "-d", "4"], "give --paper, or all of -tr, -d and -c"),
        (["--paper", *TRAINER], "--paper goes without -tr, -d, -c"),
        (["--paper", "--format", "xml"], "invalid choice: 'xml'"),
    ],
)
def test_wrong_call(reports, argv, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["complexity", *argv])
    assert stopped.value.code == 2 and message in capsys.readouterr().err
    assert reports == []


@pytest.mark.parametrize("error", [ThopMissing, PlansError])
def test_what_is_missing_is_one_line(monkeypatch, error, capsys, tmp_path):
    def report(*args, **kwargs):
        raise error("what is missing, and how to get it")

    monkeypatch.setattr(trainer_report, "trainer_report", report)
    assert cli.main(["complexity", *TRAINER, "-o", str(tmp_path / "report.md")]) == 1
    assert capsys.readouterr().err == "complexity: what is missing, and how to get it\n"
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_exists_is_replaced_on_request_alone(reports, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("# Thesis\n")
    (tmp_path / "link").symlink_to(file)
    for path in (file, tmp_path / "link"):
        assert cli.main(["complexity", "--paper", "-o", str(path)]) == 1
        assert f"{path} already exists; give another name, or --overwrite" in capsys.readouterr().err
    assert file.read_text() == "# Thesis\n" and reports == [], "refused before the work"
    assert cli.main(["complexity", "--paper", "-o", str(file), "--overwrite"]) == 0
    assert file.read_text() == "the report\n"

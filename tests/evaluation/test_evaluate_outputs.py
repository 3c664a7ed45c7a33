"""What `evaluate --json` and `--csv` may overwrite: earlier ones, never an input or a file of another kind."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnunetv2_lightm.commands.evaluate import main
from nnunetv2_lightm.evaluation import folders


@pytest.fixture
def data(tmp_path):
    """Predictions, another method's, references, and a thesis."""
    square = np.zeros((16, 16), np.uint8)
    square[:6, :6] = 1
    for folder in ("pred", "other", "ref"):
        (tmp_path / folder).mkdir()
        Image.fromarray(square).save(tmp_path / folder / "x.png")
    text = json.dumps({"labels": {"background": 0, "square": 1}, "file_ending": ".png"})
    for name in ("dataset.json", "pred/dataset.json"):
        (tmp_path / name).write_text(text)
    (tmp_path / "pred" / "summary.json").write_text('{\n    "foreground_mean": 1\n}')
    (tmp_path / "thesis.json").write_text('{"average": 1}')
    (tmp_path / "table.csv").write_text("patient,age\n")
    (tmp_path / "link.json").symlink_to("pred/dataset.json")
    return tmp_path


def evaluate(data, *options):
    return main([str(data / "pred"), str(data / "ref"), "--against", str(data / "other"), *map(str, options)])


@pytest.mark.parametrize(
    ("option", "output", "message"),
    [
        ("--json", "pred/dataset.json", "lost with it"),
        ("--json", "ref/../pred/dataset.json", "lost with it"),
        ("--json", "link.json", "lost with it"),
        *(("--json", f"{folder}/x.png", "lost with it") for folder in ("pred", "ref", "other")),
        *(("--csv", f"{folder}/x.png", "lost with it") for folder in ("pred", "ref", "other")),
        ("--json", "dataset.json", "not written by this command"),
        ("--json", "pred/summary.json", "not written by this command"),
        ("--json", "thesis.json", "not written by this command"),
        ("--csv", "table.csv", "not written by this command"),
        ("--csv", "pred", "is a folder"),
    ],
)
def test_what_must_stay_stays(data, capsys, option, output, message):
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    assert evaluate(data, option, data / output) == 1
    assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before


def test_its_own_output_is_written_again(data):
    outputs = ("--json", data / "pred" / "scores.json", "--csv", data / "new" / "scores.csv")
    for _ in range(2):
        assert evaluate(data, *outputs) == 0
        assert json.loads((data / "pred" / "scores.json").read_text())["average"]["DSC"]["mean"] == 1


def test_one_file_for_both_is_refused(data, capsys):
    assert evaluate(data, "--json", data / "one", "--csv", data / "pred" / ".." / "one") == 1
    assert "lost with it" in capsys.readouterr().err and not (data / "one").exists()


@pytest.mark.skipif(os.name != "posix", reason="a device")
def test_a_device_is_written_to(data):
    kind = Path("/dev/null").stat().st_mode
    assert evaluate(data, "--json", "/dev/null") == 0
    assert Path("/dev/null").stat().st_mode == kind


@pytest.mark.parametrize("option", ["--json", "--csv"])
def test_bad_input_makes_no_folder(data, option):
    (data / "ref" / "x.png").unlink()
    assert evaluate(data, option, data / "new" / "folder" / "scores") == 1
    assert not (data / "new").exists()


def test_a_file_in_the_place_of_the_folder_is_named_before_any_work(data, capsys, monkeypatch):
    monkeypatch.setattr(folders, "evaluate_folder", lambda *_, **__: pytest.fail("work was done"))
    assert evaluate(data, "--json", data / "thesis.json" / "new" / "scores.json") == 1
    assert f"{data / 'thesis.json'} is not a folder" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to_is_named_before_any_work(data, capsys, monkeypatch):
    monkeypatch.setattr(folders, "evaluate_folder", lambda *_, **__: pytest.fail("work was done"))
    (data / "locked").mkdir(mode=0o500)
    assert evaluate(data, "--json", data / "locked" / "new" / "scores.json") == 1
    assert f"no permission to write to {data / 'locked'}" in capsys.readouterr().err

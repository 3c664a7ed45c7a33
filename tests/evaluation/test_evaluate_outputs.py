"""What `evaluate --json` and `--csv` may overwrite: a file that exists with `--overwrite` alone, an input never."""

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
    (tmp_path / "thesis.json").write_text('{"average": 1}')
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
        ("--csv", "pred", "is a folder"),
    ],
)
def test_inputs_stay(data, capsys, option, output, message):
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    assert evaluate(data, option, data / output, "--overwrite") == 1
    assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before


def test_a_file_that_exists_is_replaced_on_request_alone(data, capsys, monkeypatch):
    outputs = {"--json": data / "scores.json", "--csv": data / "new" / "scores.csv"}
    arguments = [word for pair in outputs.items() for word in pair]
    assert evaluate(data, *arguments) == 0
    first = {file: file.read_bytes() for file in outputs.values()}
    for file in first:
        file.write_text("corrected by hand")
    with monkeypatch.context() as patched:
        patched.setattr(folders, "evaluate_folder", lambda *_, **__: pytest.fail("work was done"))
        for option, file in outputs.items():
            assert evaluate(data, option, file) == 1
            assert f"{file} already exists; give another name, or --overwrite" in capsys.readouterr().err
            assert file.read_text() == "corrected by hand"
    assert evaluate(data, *arguments, "--overwrite") == 0
    assert {file: file.read_bytes() for file in outputs.values()} == first


def test_one_file_for_both_is_refused(data, capsys):
    assert evaluate(data, "--json", data / "one", "--csv", data / "pred" / ".." / "one") == 1
    assert "lost with it" in capsys.readouterr().err and not (data / "one").exists()


@pytest.mark.skipif(os.name != "posix", reason="a device")
def test_a_device_is_written_to(data):
    kind = Path("/dev/null").stat().st_mode
    assert evaluate(data, "--json", "/dev/null") == 0
    assert Path("/dev/null").stat().st_mode == kind


@pytest.mark.skipif(os.name != "posix", reason="a pipe by its number")
def test_a_pipe_is_written_to(data):
    """As a shell's >(COMMAND) gives it."""
    reader, writer = os.pipe()
    with open(reader) as stream:
        assert evaluate(data, "--csv", f"/dev/fd/{writer}") == 0
        os.close(writer)
        assert stream.read() == "case,class,DSC,IoU\nx,square,1.000000,1.000000\n"


@pytest.mark.skipif(os.name != "posix", reason="standard output by its name")
def test_the_file_that_the_table_goes_to_is_refused(data, capfd):
    """``--csv /dev/stdout > table.md``; pytest redirects it, too."""
    assert evaluate(data, "--csv", "/dev/stdout") == 1
    output, error = capfd.readouterr()
    assert "/dev/stdout is the file that this command's messages go to" in error and output == ""


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

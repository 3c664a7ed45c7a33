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


def add_a_column(file):
    head, *rows = file.read_text().splitlines()
    file.write_text("\n".join([f"{head},comment", *(f"{row},to be checked" for row in rows)]) + "\n")


def add_a_line(file):
    file.write_text(f"{file.read_text()}Read by Dr. A,,,\n")


def add_a_word(file):
    file.write_text(file.read_text().replace("1.000000", "1.000000?", 1))


def save_it_with_a_spreadsheet(file):
    file.write_text(file.read_text().replace("1.000000", "1"))


def be_of_another_program(file):
    file.write_text("case,class,age,diagnosis\nx,square,63,none\n")


def add_a_note(*keys):
    def add(file):
        content = json.loads(file.read_text())
        place = content
        for key in keys:
            place = place[key]
        place["note"] = "checked by hand"
        file.write_text(json.dumps(content, indent=2) + "\n")

    return add


def lay_it_out(file):
    file.write_text(json.dumps(json.loads(file.read_text())))


def begin_like_it(file):
    file.write_text('{\n  "average": {\n    "age": 63\n  }\n}\n')


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *(
            ("scores.csv", change)
            for change in (
                add_a_column,
                add_a_line,
                add_a_word,
                save_it_with_a_spreadsheet,
                be_of_another_program,
            )
        ),
        *(
            ("scores.json", add_a_note(*keys))
            for keys in ((), ("average",), ("classes", "square"), ("classes", "square", "DSC"), ("against",))
        ),
        ("scores.json", add_a_note("cases", "x", "square")),
        ("scores.json", lay_it_out),
        ("scores.json", begin_like_it),
    ],
)
def test_what_somebody_has_written_into_it_stays(data, capsys, name, change):
    file = data / name
    option = f"--{file.suffix[1:]}"
    assert evaluate(data, option, file) == 0
    change(file)
    before = file.read_bytes()
    assert evaluate(data, option, file) == 1
    assert "or was changed since; it is not replaced" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_names_and_empty_scores_of_all_kinds_are_its_own(data):
    """Of a class that no case has, and of names that are escaped."""
    text = json.dumps({"labels": {"background": 0, "square": 1, '=a, "b"\u001b': 2}, "file_ending": ".png"})
    for folder in ("pred", "other", "ref"):
        (data / folder / "x.png").rename(data / folder / "-x,\u00fc.png")
        (data / folder / "dataset.json").write_text(text)
    for _ in range(2):
        assert evaluate(data, "--json", data / "scores.json", "--csv", data / "scores.csv") == 0
        assert main([str(data / "pred"), str(data / "ref"), "--json", str(data / "alone.json")]) == 0


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

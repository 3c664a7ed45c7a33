"""results.json: what is written is read, and what cannot be read is named."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest

from nnunetv2_lightm.benchmark.results import ResultsError, load_results, write_results

from .make_results import make_results, make_run


def test_what_is_written_is_read(tmp_path):
    run = make_run("nnUNetTrainer", 0.9)
    results = make_results(runs=(replace(run, predictions=Path("/data/predictions")),))
    write_results(results, tmp_path / "results.json")
    assert load_results(tmp_path / "results.json") == results


def test_a_class_without_voxels_is_null_in_the_file_and_nan_again(tmp_path):
    run = make_run("nnUNetTrainer", 0.9)
    epoch = replace(run.epochs[0], pseudo_dice=(0.5, math.nan))
    write_results(make_results(runs=(replace(run, epochs=(epoch,)),)), tmp_path / "results.json")
    assert "NaN" not in (tmp_path / "results.json").read_text()
    (loaded,) = load_results(tmp_path / "results.json").runs
    assert loaded.epochs[0].pseudo_dice[0] == 0.5 and math.isnan(loaded.epochs[0].pseudo_dice[1])


@pytest.mark.parametrize("number", [math.nan, math.inf, 3.2e31, -1e300])
def test_what_no_curve_can_show_is_null(tmp_path, number):
    """As the loss of a training that diverges; a clock that is set back makes an epoch of negative seconds."""
    run = make_run("nnUNetTrainer", 0.9)
    changes = {"train_loss": number, "val_loss": -number, "pseudo_dice": (0.5, 1.5), "seconds": -abs(number)}
    results = make_results(runs=(replace(run, epochs=(replace(run.epochs[0], **changes), *run.epochs[1:])),))
    write_results(results, tmp_path / "results.json")
    (loaded,) = load_results(tmp_path / "results.json").runs
    first, *others = loaded.epochs
    assert all(map(math.isnan, (first.train_loss, first.val_loss, first.pseudo_dice[1], first.seconds)))
    assert first.pseudo_dice[0] == 0.5 and tuple(others) == run.epochs[1:]


def test_what_could_not_be_read_is_not_written(tmp_path):
    path = tmp_path / "results.json"
    write_results(make_results(), path)
    before = path.read_bytes()
    with pytest.raises(ResultsError, match=r"results\.json: title is 'T.*such results are not written"):
        write_results(make_results(title="T" * 5000), path)
    with pytest.raises(ResultsError, match=r"run 0: failure is 'F"):
        write_results(make_results(runs=(replace(make_run("nnUNetTrainer", 0.9), failure="F" * 10**6),)), path)
    assert path.read_bytes() == before


def test_results_and_their_folders_may_move_together(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    run = replace(make_run("nnUNetTrainer", 0.9), predictions=old / "predictions", images=old / "comparison" / "images")
    (old / "comparison").mkdir(parents=True)
    write_results(make_results(runs=(run,)), old / "comparison" / "results.json")
    old.rename(new)
    (loaded,) = load_results(new / "comparison" / "results.json").runs
    assert (loaded.predictions, loaded.images) == (new / "predictions", new / "comparison" / "images")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda content: content.update(format=2), "format 2"),
        (lambda content: content.pop("calibration"), "lacks calibration"),
        (lambda content: content["runs"][1].pop("epochs"), "run 1: lacks epochs"),
        (lambda content: content["runs"][0]["epochs"][0].pop("val_loss"), "run 0: lacks val_loss"),
        (lambda content: content.update(equal="luck"), "luck"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, change, complaint):
    path = tmp_path / "results.json"
    write_results(make_results(), path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ResultsError, match=complaint) as raised:
        load_results(path)
    assert str(path) in str(raised.value)


def test_torn_file_is_refused(tmp_path):
    (tmp_path / "results.json").write_text('{"format": 1, "ti')
    with pytest.raises(ResultsError, match=r"results\.json"):
        load_results(tmp_path / "results.json")


def test_folders_on_another_drive_are_absolute(tmp_path, monkeypatch):
    """As on Windows, where no relative path leads there."""

    def relpath(path, start):
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    results = make_results(runs=(replace(make_run("nnUNetTrainer", 0.9), images=tmp_path / "images"),))
    monkeypatch.setattr(os.path, "relpath", relpath)
    write_results(results, tmp_path / "results.json")
    assert load_results(tmp_path / "results.json") == results

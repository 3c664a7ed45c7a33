"""A step whose inputs or predecessors have changed runs again, also where the run in between was killed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nnunetv2_lightm.commands.demo.steps import DemoSettings, demo_steps
from nnunetv2_lightm.files import Record
from nnunetv2_lightm.runs import pipeline
from nnunetv2_lightm.runs.pipeline import Pipeline, Step


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs steps in the folder `state`, each by writing its outputs; returns the names of those that ran."""

    def write(command, log_file, **_):
        for output in command:
            Path(output).write_text("made anew")

    monkeypatch.setattr(pipeline, "resolve_command", lambda command: list(command))
    monkeypatch.setattr(pipeline, "run_logged", write)

    def run_steps(*steps, killed_after=None):
        ended = []

        def end(step, seconds):
            ended.append(step.name)
            if step.name == killed_after:
                raise KeyboardInterrupt

        line = Pipeline(tmp_path / "state", steps, environment={}, version="1")
        try:
            line.run(lambda *_: None, on_skip=lambda step: None, on_end=end)
        except KeyboardInterrupt:
            return ended
        assert line.is_complete()
        return ended

    return run_steps


def writing(output, **options):
    return Step(output.name, (str(output),), outputs=(output,), **options)


def test_every_later_step_runs_again(run, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    checkpoint.write_text("of a training")
    train = writing(checkpoint, found=checkpoint.exists)
    steps = [train, writing(tmp_path / "predict", inputs=(checkpoint,)), writing(tmp_path / "evaluate")]
    assert run(*steps) == ["predict", "evaluate"]
    assert run(*steps) == []
    checkpoint.write_text("of another training")
    assert run(*steps) == ["predict", "evaluate"]
    checkpoint.unlink()
    assert run(*steps) == ["checkpoint", "predict", "evaluate"]


def test_a_kill_between_two_steps_hides_nothing(run, tmp_path):
    source = tmp_path / "source"
    source.write_text("first")
    steps = [writing(tmp_path / "predict", inputs=(source,)), *(writing(tmp_path / name) for name in "ab")]
    assert run(*steps) == ["predict", "a", "b"]
    source.write_text("the second one")
    assert run(*steps, killed_after="predict") == ["predict"]
    assert run(*steps, killed_after="a") == ["a"], "what is done is not done again"
    assert run(*steps) == ["b"]


def test_what_is_found_is_not_made_again(run, tmp_path):
    source = tmp_path / "source"
    source.write_text("first")
    training = tmp_path / "training"
    steps = [writing(tmp_path / "prepare", inputs=(source,)), writing(training, found=training.exists)]
    assert run(*steps) == ["prepare", "training"]
    source.write_text("the second one")
    assert run(*steps) == ["prepare"]


def edit(folder):
    (folder / "a").write_text("corrected")


def touch(folder):
    os.utime(folder / "a", (1, 1))


def add(folder):
    (folder / "c").touch()


def remove(folder):
    (folder / "b").unlink()


def rename(folder):
    (folder / "b").rename(folder / "c")


@pytest.mark.parametrize("change", [edit, touch, add, remove, rename])
def test_a_folder_is_an_input_by_its_files(run, tmp_path, change):
    folder = tmp_path / "labels"
    step = writing(tmp_path / "evaluate", inputs=(folder,))
    assert run(step) == ["evaluate"], "it need not exist"
    folder.mkdir()
    for name in "ab":
        (folder / name).touch()
    assert run(step) == ["evaluate"]
    (folder / ".DS_Store").touch()
    assert run(step) == []
    change(folder)
    assert run(step) == ["evaluate"]


def test_the_demo_names_what_its_steps_read(tmp_path):
    settings = DemoSettings(folder=tmp_path)
    *_, predict, evaluate = demo_steps(settings)
    assert set(predict.inputs) == {settings.fold_folder / "checkpoint_final.pth", settings.raw_dataset / "imagesTs"}
    assert set(evaluate.inputs) == {settings.predictions, settings.raw_dataset / "labelsTs"}


def test_a_step_can_make_files_on_another_drive(run, tmp_path, monkeypatch):
    """On Windows no relative path leads there: the folder of the state and nnU-Net's results may be on two drives."""

    def relpath(path, start):
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr(os.path, "relpath", relpath)
    output = tmp_path / "results"
    assert run(writing(output)) == ["results"]
    record = Record(tmp_path / "state")
    record.add(output)
    assert list(record.files) == [output.as_posix()]
    assert record.remove(output) is None and not output.exists()

"""A step whose inputs or predecessors have changed runs again, also where the run in between was killed."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from nnunetv2_lightm.commands.demo.steps import DemoSettings, demo_steps
from nnunetv2_lightm.files import RECORD_FILE, Record
from nnunetv2_lightm.runs import pipeline
from nnunetv2_lightm.runs.nnunet_steps import Training, predict_step
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


@pytest.fixture
def predict(tmp_path, monkeypatch):
    """Runs a step that reads `images` and leaves one file in `predictions`; `meanwhile` is called before it ends."""
    folder, images = tmp_path / "predictions", tmp_path / "images"
    monkeypatch.setattr(pipeline, "resolve_command", lambda command: list(command))

    def run_step(images_are, meanwhile=lambda folder: None, **options):
        def work(command, log_file, *, on_tick, **_):
            folder.mkdir(exist_ok=True)
            (folder / "a").write_text(f"of the {images_are}")
            meanwhile(folder)
            on_tick("")

        monkeypatch.setattr(pipeline, "run_logged", work)
        monkeypatch.setattr(pipeline, "_SAVE_SECONDS", 0)
        images.write_text(images_are)
        step = Step("predict", ("predict",), outputs=(folder,), leftovers=(folder,), inputs=(images,), **options)
        line = Pipeline(tmp_path / "state", [step], environment={}, version="1")
        with contextlib.suppress(KeyboardInterrupt):
            line.run(lambda *_: None, on_skip=lambda step: None, on_end=lambda *_: None)
        return {path.relative_to(tmp_path).as_posix(): path.read_text() for path in tmp_path.glob("*predictions*/*")}

    return run_step


def test_what_a_user_saves_while_a_step_runs_is_never_removed(predict, capsys):
    predict("first", meanwhile=add)
    assert predict("second", meanwhile=edit) == {
        "predictions/a": "corrected",
        **{"kept_predictions/a": "of the first", "kept_predictions/c": ""},
    }
    assert "predictions is made anew; what was there is now" in capsys.readouterr().err
    assert predict("third")["kept_predictions-2/a"] == "corrected"


def test_what_a_user_saves_before_an_interruption_is_never_removed(predict):
    def interrupt(folder):
        edit(folder)
        raise KeyboardInterrupt

    predict("first", meanwhile=interrupt)
    assert predict("first") == {"predictions/a": "of the first", "kept_predictions/a": "corrected"}


def test_a_prediction_starts_over():
    """What nnU-Net predicts anew it writes over what somebody may have corrected since."""
    training = Training("Dataset001_A", "2d", "nnUNetPlans", "nnUNetTrainer", 0, "cpu")
    step = predict_step(training, Path("fold_0"), Path("images"), Path("predictions"), name="predict")
    assert step.leftovers == (Path("predictions"),) and step.continuation() is None


def test_only_what_a_command_has_recorded_is_removed(predict, tmp_path):
    """Conversions and phantoms sign their folders."""

    def sign(folder):
        record = Record(folder)
        record.add(folder / "a")
        record.write("a test")

    predict("first", meanwhile=sign)
    assert predict("second", meanwhile=lambda folder: (sign(folder), add(folder))) == {
        f"predictions/{RECORD_FILE}": (tmp_path / "predictions" / RECORD_FILE).read_text(),
        **{"predictions/a": "of the second", "predictions/c": ""},
    }
    predict("third")
    assert not (tmp_path / "kept_predictions" / "a").exists() and (tmp_path / "kept_predictions" / "c").exists()


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

"""Which checkpoint a training continues from; none is ever removed."""

from __future__ import annotations

import io
import os
import pickle
import sys
import tarfile
import threading
import time
import zipfile

import pytest
import torch

from nnunetv2_lightm.checkpoints.integrity import is_torn_checkpoint
from nnunetv2_lightm.files import writers
from nnunetv2_lightm.runs.nnunet_steps import Training, is_complete_training, training_continuation
from nnunetv2_lightm.runs.process import CommandFailed

FINAL, LATEST, BEST = "checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth"


@pytest.fixture(autouse=True)
def not_watched_for_long(monkeypatch):
    monkeypatch.setattr(writers, "WATCH_SECONDS", 0.2)


def save_checkpoint(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("data.pkl", b"weights" * 100)


@pytest.mark.parametrize(("dataset", "number"), [("Dataset004_A", "4"), ("Dataset1234_A_2", "1234")])
def test_commands_name_the_data_set_by_its_id(tmp_path, dataset, number):
    training = Training(dataset, "2d", "nnUNetPlans", "nnUNetTrainer", 0, "cpu")
    assert training.train_command[1] == number
    predict = training.predict_command(tmp_path / "images", tmp_path / "predictions")
    assert predict[predict.index("-d") + 1] == number


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("present", "cut_off", "expected"),
    [
        ([], [], None),
        ([BEST], [], ["--c"]),
        ([LATEST, BEST], [], ["--c"]),
        ([BEST], [LATEST], ["--c"]),
        ([], [BEST], None),
        ([FINAL, BEST], [], ["--val"]),
        ([LATEST], [FINAL], ["--c"]),
    ],
)
@pytest.mark.parametrize("length", [0, 1, 3, 200])
def test_it_goes_on_from_a_sound_one_and_a_torn_one_is_renamed(tmp_path, present, cut_off, length, expected):
    for name in (*present, *cut_off):
        save_checkpoint(tmp_path / name)
    for name in cut_off:
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:length])
    before = contents(tmp_path)
    assert training_continuation(tmp_path) == expected
    assert contents(tmp_path) == {f"torn_{name}" if name in cut_off else name: data for name, data in before.items()}
    assert training_continuation(tmp_path) == expected


def test_torn_ones_do_not_replace_one_another(tmp_path):
    for text in (b"", b"PK"):
        (tmp_path / LATEST).write_bytes(text)
        assert training_continuation(tmp_path) is None
    assert contents(tmp_path) == {f"torn_{LATEST}": b"", f"torn_{LATEST}-2": b"PK"}


def legacy(path):
    """As PyTorch wrote it before 1.6."""
    torch.save({"network_weights": {"a": torch.arange(9.0)}}, path, _use_new_zipfile_serialization=False)


def very_old(path):
    """As PyTorch wrote it before 0.2."""
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO(b""))


def pickled(path):
    path.write_bytes(pickle.dumps({"weights": [1.0, 2.0]}))


def of_an_own_format(path):
    path.write_bytes(b"\x93MYTRAINER" + os.urandom(500))


@pytest.mark.parametrize("save", [legacy, very_old, pickled, of_an_own_format])
def test_another_format_is_not_touched(tmp_path, save):
    save(tmp_path / LATEST)
    before = contents(tmp_path)
    assert not is_torn_checkpoint(tmp_path / LATEST)
    assert training_continuation(tmp_path) == ["--c"], "the trainer that wrote it can read it"
    (tmp_path / LATEST).rename(tmp_path / FINAL)
    (tmp_path / "validation").mkdir()
    (tmp_path / "validation" / "summary.json").write_text("{}")
    assert is_complete_training(tmp_path)
    assert list(before.values()) == [(tmp_path / FINAL).read_bytes()]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_checkpoint_that_is_open_for_writing_is_not_touched(tmp_path):
    save_checkpoint(tmp_path / BEST)
    os.utime(tmp_path / BEST, (1, 1))
    with (tmp_path / LATEST).open("wb") as file:
        file.write(b"PK\x03\x04 the first half")
        file.flush()
        os.utime(tmp_path / LATEST, (1, 1))
        with pytest.raises(CommandFailed, match=f"{LATEST} is being written: another process trains this fold"):
            training_continuation(tmp_path)
        assert sorted(contents(tmp_path)) == [BEST, LATEST]
    with (tmp_path / LATEST).open("rb"):
        assert training_continuation(tmp_path) == ["--c"], "reading does no harm"


def test_a_checkpoint_that_grows_is_not_touched(tmp_path, monkeypatch):
    """The process that writes it is on another machine, or the system does not tell who has a file open."""
    monkeypatch.setattr(writers, "PROCESSES", tmp_path / "no proc")
    (tmp_path / LATEST).write_bytes(b"PK\x03\x04")
    stop = threading.Event()

    def grow():
        while not stop.is_set():
            with (tmp_path / LATEST).open("ab") as file:
                file.write(b"more")
            time.sleep(0.02)

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        with pytest.raises(CommandFailed, match="is being written"):
            training_continuation(tmp_path)
    finally:
        stop.set()
        thread.join()
    assert training_continuation(tmp_path) is None

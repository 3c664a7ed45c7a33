"""Checkpoints: whole or not there, and torn ones are recognised, named and passed over."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nnunetv2.run.run_training import maybe_load_checkpoint

from nnunetv2_lightm.checkpoints.integrity import CHECKPOINTS, is_whole_checkpoint
from nnunetv2_lightm.trainers import TRAINERS
from nnunetv2_lightm.trainers.checkpoints import TornCheckpointError

FINAL, LATEST, BEST = CHECKPOINTS
OURS = "nnUNetTrainerLightMUNet_3epochs"


@pytest.fixture
def trained(make_trainer):
    """A trainer with a checkpoint of each name, and the folder they are in; the epoch tells them apart."""
    trainer = make_trainer(OURS)
    trainer.initialize()
    for epoch, name in enumerate(CHECKPOINTS):
        trainer.current_epoch = epoch
        trainer.save_checkpoint(str(Path(trainer.output_folder, name)))
    return trainer, Path(trainer.output_folder)


def files(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("training_log"))


def cut_off(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def blot_out(path):
    """Zeros in the middle, as a faulty disk leaves them; torch.load loads it."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4096] = bytes(4096)
    path.write_bytes(data)
    torch.load(path, weights_only=False)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut_off, blot_out, empty])
def test_damage_is_seen(trained, damage):
    path = trained[1] / FINAL
    assert is_whole_checkpoint(path)
    damage(path)
    assert not is_whole_checkpoint(path)


def test_damage_of_the_table_of_contents_is_seen(trained):
    """zipfile raises many kinds of errors for it; a few fields of an entry it ignores."""
    path = trained[1] / FINAL
    data = path.read_bytes()
    start = data.index(b"PK\x01\x02")
    seen = []
    for position in range(start, start + 46):  # an entry without its name
        path.write_bytes(data[:position] + b"\xff\xff" + data[position + 2 :])
        seen.append(not is_whole_checkpoint(path))
    assert seen.count(True) > 20
    path.write_bytes(data[:start])
    assert not is_whole_checkpoint(path)


@pytest.mark.parametrize("name", sorted(TRAINERS))
@pytest.mark.parametrize("error", [OSError("no space left on device"), KeyboardInterrupt()])
def test_interrupted_save_leaves_the_last_checkpoint(make_trainer, monkeypatch, name, error):
    trainer = make_trainer(name)
    trainer.initialize()
    path = Path(trainer.output_folder, LATEST)
    trainer.save_checkpoint(str(path))
    before = path.read_bytes()

    def torn_save(checkpoint, file):
        Path(file).write_bytes(before[:1000])
        raise error

    monkeypatch.setattr(torch, "save", torn_save)
    with pytest.raises(type(error)):
        trainer.save_checkpoint(str(path))
    assert files(path.parent) == [LATEST]
    assert path.read_bytes() == before


def test_nothing_is_written_where_nnunet_writes_nothing(make_trainer):
    trainer = make_trainer(OURS)
    trainer.initialize()
    path = Path(trainer.output_folder, LATEST)
    trainer.disable_checkpointing = True
    trainer.save_checkpoint(str(path))
    trainer.disable_checkpointing, trainer.local_rank = False, 1
    trainer.save_checkpoint(str(path))
    assert files(path.parent) == []


@pytest.mark.parametrize(
    ("torn", "present", "taken"),
    [
        ([], CHECKPOINTS, FINAL),
        ([FINAL], CHECKPOINTS, LATEST),
        ([FINAL, LATEST], CHECKPOINTS, BEST),
        ([LATEST], [LATEST, BEST], BEST),
        ([LATEST], CHECKPOINTS, FINAL),
        ([BEST], [LATEST, BEST], LATEST),
    ],
)
def test_continuing_takes_the_next_whole_checkpoint(trained, make_trainer, torn, present, taken):
    folder = trained[1]
    for name in set(CHECKPOINTS) - set(present):
        (folder / name).unlink()
    for name in torn:
        cut_off(folder / name)
    trainer = make_trainer(OURS, continue_training=True)
    maybe_load_checkpoint(trainer, continue_training=True, validation_only=False)
    assert trainer.current_epoch == CHECKPOINTS.index(taken) + 1
    log = Path(trainer.log_file).read_text()
    asked = next(name for name in CHECKPOINTS if name in present)
    if asked in torn:
        assert f"WARNING: {folder / asked} is torn" in log and f"Continuing from {folder / taken}" in log
    else:
        assert "torn" not in log


def test_no_whole_checkpoint_is_an_error(trained, make_trainer):
    for name in CHECKPOINTS:
        cut_off(trained[1] / name)
    trainer = make_trainer(OURS, continue_training=True)
    with pytest.raises(TornCheckpointError, match=rf"{FINAL} is torn.*move it away and train without --c"):
        maybe_load_checkpoint(trainer, continue_training=True, validation_only=False)


def test_validation_is_not_done_with_another_checkpoint(trained, make_trainer):
    folder = trained[1]
    cut_off(folder / FINAL)
    trainer = make_trainer(OURS)
    with pytest.raises(TornCheckpointError, match=rf"{FINAL} is torn.*with --c continues from .*{LATEST}"):
        maybe_load_checkpoint(trainer, continue_training=False, validation_only=True)
    cut_off(folder / BEST)
    trainer = make_trainer(OURS, continue_training=True)  # --c --val_best: the best, or none
    with pytest.raises(TornCheckpointError, match=f"{BEST} is torn"):
        trainer.load_checkpoint(str(folder / BEST))


def test_missing_checkpoint_is_nnunets_own_error(make_trainer):
    with pytest.raises(FileNotFoundError):
        make_trainer(OURS).load_checkpoint("/nowhere/checkpoint_final.pth")

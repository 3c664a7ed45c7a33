"""nnU-Net's training log, also of a training that was interrupted and continued."""

from __future__ import annotations

import math

import pytest

from nnunetv2_lightm.runs.training_log import EpochRecord, read_training_log


def write_log(folder, stamp, epochs, *, cut=False):
    """Lines as nnU-Net 2.8 writes them; loss = -epoch, or -epoch - 0.5 for a later log."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["", "#####", "Please cite the following paper when using nnU-Net:", "#####"]
    t = "2026-01-02 03:04:05.678901:"
    for epoch, loss in epochs:
        lines += [
            f"{t}  ",
            f"{t} Epoch {epoch} ",
            f"{t} Current learning rate: 0.00095 ",
            f"{t} train_loss {loss} ",
            f"{t} val_loss {loss + 0.25} ",
            f"{t} Pseudo dice [np.float32(0.7151), np.float32(0.0), np.float64(nan), np.float64(1e-04)] ",
            f"{t} Epoch time: 12.5 s ",
            f"{t} Yayy! New best EMA pseudo Dice: 0.7151 ",
        ]
    if cut:
        lines += [f"{t} Epoch {epochs[-1][0] + 1} ", f"{t} Current learning rate: 0.0009 ", f"{t} train_lo"]
    (folder / f"training_log_{stamp}.txt").write_text("\n".join(lines))


def losses(records):
    return [(record.epoch, record.train_loss) for record in records]


def test_one_log(tmp_path):
    write_log(tmp_path, "2026_1_2_03_04_05", [(0, -0.1), (1, -0.3)])
    first, second = read_training_log(tmp_path)
    assert first == EpochRecord(0, -0.1, 0.15, first.pseudo_dice, 12.5)
    assert first.pseudo_dice[:2] == (0.7151, 0.0)
    assert math.isnan(first.pseudo_dice[2])
    assert first.pseudo_dice[3] == 1e-4
    assert second.epoch == 1


def test_unfinished_epoch_is_left_out(tmp_path):
    write_log(tmp_path, "2026_1_2_03_04_05", [(0, -0.1)], cut=True)
    assert losses(read_training_log(tmp_path)) == [(0, -0.1)]


def test_resumed_training_is_merged_by_epoch(tmp_path):
    # The second run starts again from the checkpoint after epoch 1; months and days have no leading zero.
    write_log(tmp_path, "2026_9_30_23_59_59", [(0, -0.1), (1, -0.2), (2, -0.3), (3, -0.4)], cut=True)
    write_log(tmp_path, "2026_10_1_00_00_10", [(2, -0.35)])
    assert losses(read_training_log(tmp_path)) == [(0, -0.1), (1, -0.2), (2, -0.35)]


def test_run_without_an_epoch_changes_nothing(tmp_path):
    write_log(tmp_path, "2026_1_1_00_00_00", [(0, -0.1), (1, -0.2)])
    write_log(tmp_path, "2026_1_2_00_00_00", [])
    assert losses(read_training_log(tmp_path)) == [(0, -0.1), (1, -0.2)]


def test_training_from_the_start_replaces_the_old_one(tmp_path):
    write_log(tmp_path, "2026_1_1_00_00_00", [(0, -0.1), (1, -0.2)])
    write_log(tmp_path, "2026_1_2_00_00_00", [(0, -0.9)])
    assert losses(read_training_log(tmp_path)) == [(0, -0.9)]


def test_single_file_is_read_alone(tmp_path):
    write_log(tmp_path, "2026_1_1_00_00_00", [(0, -0.1)])
    write_log(tmp_path, "2026_1_2_00_00_00", [(1, -0.2)])
    assert losses(read_training_log(tmp_path / "training_log_2026_1_2_00_00_00.txt")) == [(1, -0.2)]


def test_missing_and_empty_logs_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="fold_0"):
        read_training_log(tmp_path / "fold_0")
    write_log(tmp_path, "2026_1_1_00_00_00", [])
    with pytest.raises(ValueError, match="no finished epoch"):
        read_training_log(tmp_path)

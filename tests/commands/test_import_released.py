"""`nnUNetv2_lightm import-released`: what it prints, its exit codes, and the command it suggests next."""

from __future__ import annotations

import shlex

import pytest
import torch

from nnunetv2_lightm import cli

from ..released.fork_checkpoint import fork_checkpoint, network_of, without_values


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Two folds of the first revision."""
    folder, weights = tmp_path_factory.mktemp("fork"), without_values(network_of("first"))
    paths = [folder / f"{fold}.pth" for fold in (0, 4)]
    for fold, path in zip((0, 4), paths):
        torch.save(fork_checkpoint(weights, fold=fold), path)
    return [str(path) for path in paths]


def test_says_what_was_imported_and_how_to_predict(checkpoints, tmp_path, capsys):
    out = tmp_path / "model"
    assert cli.main(["import-released", *checkpoints, str(out)]) == 0
    first, _, command, last = capsys.readouterr().out.splitlines()
    assert first == f"{out}: nnUNetTrainerLightMUNetReleasedFirst, 3d_fullres, fold 0 4, 6,150,168 parameters."
    program, *arguments = shlex.split(command)
    assert program == "nnUNetv2_predict_from_modelfolder"
    assert arguments[-5:] == ["-m", str(out), "-f", "0", "4"]
    assert "nnUNetTrainerLightMUNetReleasedFirst__nnUNetPlans__3d_fullres" in last
    assert all((out / f"fold_{fold}" / "checkpoint_final.pth").is_file() for fold in (0, 4))


def test_overwrites_only_when_told(checkpoints, tmp_path, capsys):
    out = str(tmp_path / "model")
    assert cli.main(["import-released", *checkpoints, out]) == 0
    assert cli.main(["import-released", checkpoints[0], out]) == 1
    assert f"nnUNetv2_lightm import-released: {out}: already exists" in capsys.readouterr().err
    assert cli.main(["import-released", checkpoints[0], "--overwrite", out]) == 0
    assert not (tmp_path / "model" / "fold_4").exists()


def test_refuses_with_one_line(tmp_path, capsys):
    path = tmp_path / "c.pth"
    path.write_text("text")
    assert cli.main(["import-released", str(path), str(tmp_path / "model")]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and len(captured.err.splitlines()) == 1
    assert f"{path}: 4 bytes that are not a checkpoint" in captured.err


def test_an_unwritable_place_is_named(checkpoints, unwritable_folder, capsys):
    assert cli.main(["import-released", checkpoints[0], str(unwritable_folder / "sub" / "model")]) == 1
    assert "nnUNetv2_lightm import-released: cannot make the folder" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["only.pth"]])
def test_wrongly_called(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["import-released", *arguments])
    assert stopped.value.code == 2
    assert "the following arguments are required" in capsys.readouterr().err

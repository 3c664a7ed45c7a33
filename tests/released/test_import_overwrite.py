"""Existing files at the place of the new model folder: replaced if an import made them, otherwise left alone."""

from __future__ import annotations

import pytest
import torch

from nnunetv2_lightm.checkpoints.safe_loading import CheckpointError
from nnunetv2_lightm.released.model_folder import import_released


def test_a_folder_that_is_there_is_left_alone(tmp_path, source):
    out = tmp_path / "model"
    out.mkdir()
    with pytest.raises(CheckpointError, match="model: already exists; give another folder, or --overwrite"):
        import_released([source()], out)
    assert list(out.iterdir()) == []


def test_overwrite_replaces_what_an_import_made(tmp_path, source):
    import_released([source(fold=0)], tmp_path / "model")
    import_released([source(fold=1)], tmp_path / "model", overwrite=True)
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {"plans.json", "dataset.json", "fold_1", ".nnunetv2_lightm.json"}
    assert {path.name for path in tmp_path.iterdir()} == {"model", "fork.pth"}


def own_model(folder):
    """A model that stock nnU-Net has trained."""
    for name in ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth", "fold_0/validation/summary.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("of the user")


@pytest.mark.parametrize(
    "make", [lambda p: p.write_text("x"), lambda p: (p.mkdir(), (p / "thesis.tex").touch()), own_model]
)
def test_overwrite_replaces_nothing_else(tmp_path, source, make):
    make(tmp_path / "model")
    path = source()
    before = files(tmp_path)
    with pytest.raises(CheckpointError, match="is not a folder and is not replaced|not made by this command"):
        import_released([path], tmp_path / "model", overwrite=True)
    assert files(tmp_path) == before


def test_what_was_added_to_an_imported_model_stays(tmp_path, source):
    path = source()
    import_released([path], tmp_path / "model")
    (tmp_path / "model" / "postprocessing.pkl").write_text("of the user")
    before = files(tmp_path)
    with pytest.raises(CheckpointError, match=r"postprocessing\.pkl"):
        import_released([path], tmp_path / "model", overwrite=True)
    assert files(tmp_path) == before


@pytest.mark.parametrize("out", [".", "fold_0", "fold_0/checkpoint_final.pth", "../link", "../link/fold_0", "../case"])
def test_a_source_inside_its_own_output_is_refused(tmp_path, source, out):
    model = tmp_path / "model"
    own_model(model)
    checkpoint = model / "fold_0" / "checkpoint_final.pth"
    source().replace(checkpoint)
    (tmp_path / "link").symlink_to(model)
    (tmp_path / "case").symlink_to(checkpoint)
    before = files(tmp_path)
    for given in (checkpoint, tmp_path / "link" / "fold_0" / "checkpoint_final.pth", tmp_path / "case"):
        for overwrite in (True, False):
            with pytest.raises(CheckpointError, match="would be written or replaced, and .* lost with it"):
                import_released([given], model / out, overwrite=overwrite)
    assert files(tmp_path) == before


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_disk_that_is_full_leaves_the_old_folder(tmp_path, source, monkeypatch):
    path = source(fold=0)
    import_released([path], tmp_path / "model")
    before = {p: p.read_bytes() for p in (tmp_path / "model").rglob("*") if p.is_file()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        import_released([path], tmp_path / "model", overwrite=True)
    assert {p: p.read_bytes() for p in (tmp_path / "model").rglob("*") if p.is_file()} == before
    assert {p.name for p in tmp_path.iterdir()} == {"model", "fork.pth"}


def test_a_full_disk_is_named(tmp_path, source, monkeypatch):
    """torch.save then says only "unexpected pos 193472 vs 193360"."""

    def full(*_):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 193472 vs 193360")

    path = source()
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match=r"cannot write .*checkpoint_final.pth \(\d+ MiB are free there\)"):
        import_released([path], tmp_path / "model")
    assert not (tmp_path / "model").exists()

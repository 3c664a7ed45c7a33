"""Checkpoints of unknown origin: what may be in them, and what is said of all else."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunetv2_lightm.released.safe_checkpoint import NUMPY_SCALARS, CheckpointError, load_safely

MODULE_OF_NUMPY_1 = b"numpy.core.multiarray"


class RunsCode:
    """An object whose unpickling makes a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def test_tensors_plain_objects_and_numpy_scalars(tmp_path):
    content = {
        "weights": OrderedDict(a=torch.arange(6.0).view(2, 3)),
        "device": torch.device("cuda", 0),
        "plain": [1, 2.5, None, True, "text", (1, 2)],
        "scalars": [scalar(1) for scalar in NUMPY_SCALARS],
    }
    loaded = load_safely(saved(tmp_path / "c.pth", content))
    torch.testing.assert_close(loaded.pop("weights"), content.pop("weights"))
    assert loaded == content
    assert [type(scalar) for scalar in loaded["scalars"]] == list(NUMPY_SCALARS)


def test_numpy_scalars_under_the_name_of_numpy_1(tmp_path):
    """Checkpoints of 2023 name the module that numpy 2 has renamed."""
    new = saved(tmp_path / "new.pth", {"ema": np.float64(0.25)})
    with zipfile.ZipFile(new) as source, zipfile.ZipFile(tmp_path / "old.pth", "w") as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, data.replace(b"numpy._core.multiarray", MODULE_OF_NUMPY_1))
            if name.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in data or MODULE_OF_NUMPY_1 in data
    assert load_safely(tmp_path / "old.pth") == {"ema": 0.25}


def test_code_is_not_run_and_is_named(tmp_path):
    path = saved(tmp_path / "c.pth", {"network_weights": {}, "logging": RunsCode(tmp_path / "ran")})
    with pytest.raises(CheckpointError, match=r"c\.pth: refers to (posix|nt)\.mkdir, and loading that could run code"):
        load_safely(path)
    assert not (tmp_path / "ran").exists()


def test_all_that_is_not_allowed_is_named(tmp_path):
    path = saved(tmp_path / "c.pth", [Path("x"), np.zeros(2), torch.nn.Linear(1, 1)])
    with pytest.raises(CheckpointError) as refused:
        load_safely(path)
    for name in ("pathlib.", "multiarray._reconstruct", "torch.nn.modules.linear.Linear"):
        assert name in str(refused.value)


def test_object_arrays_do_not_come_in_through_a_scalar(tmp_path):
    class Sneaky:
        def __reduce__(self):
            return np.float64(0).__reduce__()[0], (np.dtype(object), RunsCode(tmp_path / "ran"))

    with pytest.raises(CheckpointError, match="mkdir"):
        load_safely(saved(tmp_path / "c.pth", Sneaky()))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, r"no such file; give a checkpoint file, e\.g\. fold_0/checkpoint_final\.pth"),
        (lambda path: path.mkdir(), "is a folder; give a checkpoint file"),
        (lambda path: path.write_bytes(b""), "0 bytes that are no checkpoint"),
        (lambda path: path.write_text("not a checkpoint"), "16 bytes that are no checkpoint, or not all of one"),
        (lambda path: path.write_bytes(pickle.dumps({"network_weights": 1})), "that are no checkpoint"),
        (lambda path: torch.save({}, path, _use_new_zipfile_serialization=False), "that are no checkpoint"),
        (lambda path: zip_with(path, {"readme.txt": b"text"}), "cannot be loaded as a checkpoint: RuntimeError"),
        (lambda path: zip_with(path, {"c/data.pkl": b"", "c/version": b"3\n"}), "cannot be loaded as a checkpoint"),
        (lambda path: zip_with(path, {"c/data.pkl": b"\x80\x02.", "c/version": b"3\n"}), "cannot be loaded"),
        (lambda path: torch.jit.save(torch.jit.script(torch.nn.ReLU()), path), "cannot be loaded.*torchscript"),
    ],
    ids=[
        "nothing",
        "folder",
        "empty",
        "text",
        "pickle",
        "legacy",
        "zip",
        "empty_pickle",
        "broken_pickle",
        "torchscript",
    ],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_what_is_no_checkpoint(tmp_path, make, message):
    path = tmp_path / "c.pth"
    make(path)
    with pytest.raises(CheckpointError, match=message) as refused:
        load_safely(path)
    assert str(path) in str(refused.value)
    assert "weights_only" not in str(refused.value), "torch advises to load the file unsafely"


def zip_with(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)


@pytest.mark.parametrize("kept", [0.01, 0.5, 0.99, 0.9999])
def test_cut_off(tmp_path, kept):
    path = saved(tmp_path / "c.pth", {"a": torch.arange(5000.0)})
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(CheckpointError, match="or not all of one"):
        load_safely(path)


def test_a_changed_byte_is_noticed(tmp_path):
    """torch.load would return the wrong numbers."""
    path = saved(tmp_path / "c.pth", {"a": torch.arange(5000.0)})
    data = bytearray(path.read_bytes())
    data[data.find(torch.arange(5000.0).numpy().tobytes()) + 4001] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="is damaged: the checksum of .*data/0 is wrong"):
        load_safely(path)

"""Checkpoints of unknown origin: what they may contain, and what is said about anything else."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunetv2_lightm.checkpoints.safe_loading import NUMPY_SCALARS, CheckpointError, check_extent, load_safely

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
        (lambda path: path.write_bytes(b""), "0 bytes that are not a checkpoint"),
        (lambda path: path.write_text("not a checkpoint"), "16 bytes that are not a checkpoint, or not all of one"),
        (lambda path: path.write_bytes(pickle.dumps({"network_weights": 1})), "that are not a checkpoint"),
        (lambda path: torch.save({}, path, _use_new_zipfile_serialization=False), "that are not a checkpoint"),
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


class Calls:
    """Unpickles as a call of a function that torch allows."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def shared(levels: int) -> list:
    """Small in a pickle, 2**levels lists when it is written out."""
    content = ["text"]
    for _ in range(levels):
        content = [content, content]
    return content


def rewritten(path: Path, **changes) -> Path:
    """The archive with its entries written in another way: compressed, or with an entry that counts again."""
    other = path.with_name("other.pth")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(other, "w", **changes) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    return other


def with_numel(path: Path, numel: int) -> Path:
    """A tensor of 3 numbers and its storage say that they have more; their part of the archive stays as it is."""
    other = path.with_name("other.pth")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(other, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith("data.pkl"):
                number = b"J" + numel.to_bytes(4, "little")
                for of_storage_and_shape in (b"K\x03tq", b"K\x03\x85"):
                    assert data.count(of_storage_and_shape) == 1
                    data = data.replace(of_storage_and_shape, number + of_storage_and_shape[2:])
            target.writestr(name, data)
    return other


def many_parts(path: Path) -> Path:
    with zipfile.ZipFile(path, "a") as archive:
        for i in range(10_001):
            archive.writestr(f"c/{i}", b"")
    return path


def overlapping(path: Path) -> Path:
    """A second name for the part of the tensor: the central directory leads twice to the same bytes."""
    with zipfile.ZipFile(path, "a") as archive:
        (part,) = [entry for entry in archive.infolist() if entry.filename.endswith("data/0")]
        archive.filelist += [part] * 3
        archive._didModify = True
    return path


TENSOR = {"a": torch.zeros(3)}


def spelled(path: Path, name: str = "DATA.PKL") -> Path:
    """The pickle under another name, that torch's reader takes for the usual one."""
    other = path.with_name("other.pth")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(other, "w") as target:
        for entry in source.namelist():
            target.writestr(entry.replace("data.pkl", name), source.read(entry))
    return other


def spelled_twice(path: Path) -> Path:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("c/Data.pkl", archive.read("c/data.pkl"))
    return path


BOMBS = {
    "upper_case": (
        lambda path: spelled(saved(path, Calls(bytearray, 6 * 10**8))),
        r"refers to __builtin__\.bytearray, .* memory",
    ),
    "two_spellings": (lambda path: spelled_twice(saved(path, TENSOR)), "two of its parts have one name"),
    "bytearray": (
        lambda path: saved(path, Calls(bytearray, 6 * 10**8)),
        r"refers to __builtin__\.bytearray, .* memory",
    ),
    "tensor": (lambda path: saved(path, Calls(torch.Tensor, 6 * 10**8)), "refers to torch.Tensor, .* memory"),
    "legacy_tensor": (lambda path: saved(path, Calls(torch.FloatTensor, 10**8)), r"refers to torch\.\w+, .* memory"),
    "storage": (lambda path: saved(path, Calls(torch.UntypedStorage, 6 * 10**8)), "refers to torch.storage.UntypedSto"),
    "deflated": (
        lambda path: rewritten(saved(path, {"a": torch.zeros(10**7)}), compression=zipfile.ZIP_DEFLATED),
        r"c/data\.pkl is compressed, from \d+ bytes to \d+; torch",
    ),
    "bzip2": (lambda path: rewritten(saved(path, TENSOR), compression=zipfile.ZIP_BZIP2), "is compressed"),
    "numel": (lambda path: with_numel(saved(path, TENSOR), 2**29), "cannot be loaded"),
    "parts": (lambda path: many_parts(saved(path, TENSOR)), "has 10,00. parts"),
    "overlapping": (lambda path: overlapping(saved(path, {"a": torch.zeros(10**6)})), "they lie over each other"),
    "large_pickle": (
        lambda path: saved(path, [{}] + list(range(4 * 10**6))),
        r"data.pkl has .* bytes in addition to the tensors",
    ),
}


@pytest.mark.parametrize(("make", "message"), BOMBS.values(), ids=BOMBS)
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_a_small_file_takes_little_memory(tmp_path, make, message):
    path = make(tmp_path / "c.pth")
    with memory_limited_to_mib(200), pytest.raises(CheckpointError, match=message):
        load_safely(path)


@pytest.mark.slow
def test_shared_parts_are_not_written_out(tmp_path):
    content = load_safely(saved(tmp_path / "c.pth", {"plans": shared(60)}))
    with pytest.raises(CheckpointError, match=r"c\.pth: plans has more than 8,388,608 entries"):
        check_extent(tmp_path / "c.pth", "plans", content)
    check_extent(tmp_path / "c.pth", "plans", shared(10))
    circle = []
    circle.append(circle)
    with pytest.raises(CheckpointError, match="entries"):
        check_extent(tmp_path / "c.pth", "plans", circle)


@contextmanager
def memory_limited_to_mib(mib: int):
    """The process may allocate so much more than it has."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + mib * 2**20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)

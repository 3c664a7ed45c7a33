"""Files that are no model, of another version, cut off or damaged are refused by name."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import torch
from lightm_runtime import BundleError, load
from lightm_runtime.bundle import read_bundle
from safetensors import safe_open
from safetensors.torch import save_file


def rewritten(bundle, path, change):
    """The file with its header changed by ``change(metadata, pipeline)``; the weights are the same."""
    content = bundle.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    pipeline = json.loads(header["__metadata__"]["pipeline"])
    change(header, pipeline)
    if "__metadata__" in header:
        header["__metadata__"]["pipeline"] = json.dumps(pipeline)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    return path


def refusal(path) -> str:
    with pytest.raises(BundleError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_tensors_are_those_of_the_safetensors_library(flat_bundle):
    found = read_bundle(flat_bundle)
    with safe_open(flat_bundle, "np") as file:
        assert set(file.keys()) == set(found.tensors)
        for name in file.keys():  # noqa: SIM118
            np.testing.assert_array_equal(found.tensors[name], file.get_tensor(name))
    assert found.folds == ["fold_0"]


def test_cut_off_anywhere(flat_bundle, tmp_path):
    content = flat_bundle.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    for size in (0, 5, 8, 100, 8 + length - 1, 8 + length, len(content) - 1):
        path = tmp_path / f"{size}.lightm"
        path.write_bytes(content[:size])
        refusal(path)


def test_damage_anywhere_in_the_weights(flat_bundle, tmp_path):
    content = bytearray(flat_bundle.read_bytes())
    (length,) = struct.unpack("<Q", content[:8])
    for place in (8 + length, (8 + length + len(content)) // 2, len(content) - 1):
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        path = tmp_path / f"{place}.lightm"
        path.write_bytes(damaged)
        assert "damaged" in refusal(path)


def test_other_files(tmp_path):
    assert "no such file" in refusal(tmp_path / "nothing.lightm")
    assert "folder" in refusal(tmp_path)
    (tmp_path / "text.lightm").write_text("no model at all, and long enough to have a header" * 10)
    assert "is not a model" in refusal(tmp_path / "text.lightm")
    save_file({"a": torch.zeros(3)}, tmp_path / "other.safetensors")
    assert "not a model that `nnUNetv2_lightm export` wrote" in refusal(tmp_path / "other.safetensors")
    torch.save({"a": torch.zeros(3)}, tmp_path / "checkpoint.pth")
    assert "is not a model" in refusal(tmp_path / "checkpoint.pth")


def test_unknown_version(flat_bundle, tmp_path):
    def change(header, pipeline):
        header["__metadata__"]["version"] = "2"

    message = refusal(rewritten(flat_bundle, tmp_path / "a.lightm", change))
    assert "version 2" in message and "update lightm-runtime" in message


def _drop_section(header, pipeline):
    del pipeline["network"]


def _drop_tensor(header, pipeline):
    del header["fold_0/stem.pointwise.bias"]


def _other_dtype(header, pipeline):
    header["fold_0/stem.pointwise.bias"]["dtype"] = "I32"


def _beyond_the_end(header, pipeline):
    header["fold_0/stem.pointwise.bias"]["data_offsets"] = [0, 10**12]


def _negative(header, pipeline):
    header["fold_0/stem.pointwise.bias"]["shape"] = [-32]


def _not_a_list(header, pipeline):
    header["fold_0/stem.pointwise.bias"]["data_offsets"] = "all"


def _wide_network(header, pipeline):
    pipeline["network"]["features"] = 64


def _huge_network(header, pipeline):
    pipeline["network"]["rvm_layers"] = [10**9, 2, 2]


def _deep_network(header, pipeline):
    pipeline["network"]["rvm_layers"] = [1] * 9


def _other_network(header, pipeline):
    pipeline["network"]["type"] = "UNETR"


def _other_scheme(header, pipeline):
    pipeline["input"]["channels"][0]["scheme"] = "Other"


def _more_channels(header, pipeline):
    pipeline["input"]["channels"] *= 2


def _words_for_numbers(header, pipeline):
    pipeline["inference"]["patch_size"] = ["a", "b"]


def _regions_too_few(header, pipeline):
    pipeline["output"]["regions_class_order"] = [1]


DAMAGES = (
    *(_drop_section, _drop_tensor, _other_dtype, _beyond_the_end, _negative, _not_a_list, _wide_network),
    *(
        _huge_network,
        _deep_network,
        _other_network,
        _other_scheme,
        _more_channels,
        _words_for_numbers,
        _regions_too_few,
    ),
)


@pytest.mark.parametrize("change", DAMAGES, ids=lambda change: change.__name__.strip("_"))
def test_content_that_does_not_fit(change, flat_bundle, tmp_path):
    refusal(rewritten(flat_bundle, tmp_path / "a.lightm", change))


@pytest.mark.parametrize("value", [[0, 0, 1], [0, 1, 3], [0, 1]])
def test_axes_that_are_none_are_refused(value, flat_bundle, tmp_path):
    def change(header, pipeline):
        pipeline["preprocessing"]["transpose_forward"] = value

    model = rewritten(flat_bundle, tmp_path / "a.lightm", change)
    with pytest.raises(Exception) as caught:
        load(model).segment(np.ones((1, 1, 20, 20), np.float32), (999.0, 1.0, 1.0))
    assert type(caught.value).__name__ in ("BundleError", "EngineError")

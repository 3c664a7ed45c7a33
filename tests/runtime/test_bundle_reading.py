"""Files that are no model, of another version, cut off or damaged are refused by name."""

from __future__ import annotations

import hashlib
import json
import struct

import numpy as np
import pytest
import torch
from lightm_runtime import BundleError, EngineError, load
from lightm_runtime.bundle import read_bundle
from safetensors import safe_open
from safetensors.torch import save_file


def rewritten(bundle, path, change):
    """The file with its header changed by ``change(header, pipeline)``, and the checksum of that: no damage, but what
    another program might write. The weights are the same.
    """
    content = bundle.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    pipeline = json.loads(header["__metadata__"]["pipeline"])
    change(header, pipeline)
    header["__metadata__"] |= {"pipeline": json.dumps(pipeline), "sha256": "0" * 64}
    text = json.dumps(header).encode()
    content = struct.pack("<Q", len(text)) + text + content[8 + length :]
    path.write_bytes(content.replace(b"0" * 64, hashlib.sha256(content).hexdigest().encode(), 1))
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


def test_damage_anywhere(flat_bundle, tmp_path):
    content = bytearray(flat_bundle.read_bytes())
    (length,) = struct.unpack("<Q", content[:8])
    random = np.random.default_rng(0)
    path = tmp_path / "damaged.lightm"
    for place in (
        0,
        8 + length,
        len(content) - 1,
        *random.integers(0, 8 + length, 200),
        *random.integers(0, len(content), 9),
    ):
        damaged = bytearray(content)
        damaged[place] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        refusal(path)


def test_a_digit_of_the_pipeline_or_of_a_place_is_damage(flat_bundle, tmp_path):
    """They read well, and would give other labels."""
    content = flat_bundle.read_bytes()
    for found, other in ((b'\\"step\\": 0.5', b'\\"step\\": 0.7'), (b'"data_offsets":[0,', b'"data_offsets":[4,')):
        assert content.count(found) == 1
        (tmp_path / "a.lightm").write_bytes(content.replace(found, other))
        assert "is damaged: its checksum is wrong" in refusal(tmp_path / "a.lightm")


def test_what_is_rewritten_here_is_read(flat_bundle, tmp_path):
    """Else the refusals below would show nothing."""
    assert load(rewritten(flat_bundle, tmp_path / "a.lightm", lambda header, pipeline: None)).channels


def test_other_files(tmp_path):
    assert "no such file" in refusal(tmp_path / "nothing.lightm")
    assert "folder" in refusal(tmp_path)
    (tmp_path / "text.lightm").write_text("no model at all, and long enough to have a header" * 10)
    assert "is not a model" in refusal(tmp_path / "text.lightm")
    save_file({"a": torch.zeros(3)}, tmp_path / "other.safetensors")
    assert "not a model that `nnUNetv2_lightm export` wrote" in refusal(tmp_path / "other.safetensors")
    torch.save({"a": torch.zeros(3)}, tmp_path / "checkpoint.pth")
    assert "is not a model" in refusal(tmp_path / "checkpoint.pth")


@pytest.mark.parametrize(
    ("version", "fix"),
    [
        ("3", "update lightm-runtime"),
        *((version, "export the model again") for version in ("1", "x", "9" * 5000)),
    ],
)
def test_unknown_version(version, fix, flat_bundle, tmp_path):
    def change(header, pipeline):
        header["__metadata__"]["version"] = version

    message = refusal(rewritten(flat_bundle, tmp_path / "a.lightm", change))
    assert f"version {version[:60]}; this program reads version 2: {fix}" in message


@pytest.mark.parametrize("shape", [[0, 10**30], [0, 2**63], [2**41, 0], [0] * 100, [1] * 9 + [0]], ids=str)
def test_shapes_that_numpy_cannot_make(shape, flat_bundle, tmp_path):
    """Without a number in it, a tensor of any shape fits the file."""

    def change(header, pipeline):
        end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
        header["fold_0/more"] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end]}

    message = refusal(rewritten(flat_bundle, tmp_path / "a.lightm", change))
    assert "its entry of the tensor fold_0/more does not fit the file" in message


@pytest.mark.parametrize("part", ["header", "pipeline"])
@pytest.mark.parametrize("value", ["9" * 5000, "[" * 5000 + "]" * 5000, "[" * 10**5], ids=["digits", "nested", "deep"])
def test_json_that_python_does_not_read_or_print(value, part, flat_bundle, tmp_path):
    """An integer of so many digits is a ValueError of its own."""
    path = rewritten(flat_bundle, tmp_path / "a.lightm", lambda header, pipeline: pipeline.update(x="VALUE"))
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = content[8 : 8 + length].replace(b'\\"VALUE\\"', value.encode())
    if part == "header":
        header = content[8 : 8 + length].replace(b"{", b'{"x": ' + value.encode() + b", ", 1)
    content = struct.pack("<Q", len(header)) + header + content[8 + length :]
    checksum = json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"]["sha256"].encode()
    content = content.replace(checksum, b"0" * 64)
    path.write_bytes(content.replace(b"0" * 64, hashlib.sha256(content).hexdigest().encode(), 1))
    refusal(path)


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


def _overlapping(header, pipeline):
    entry = header["fold_0/stem.pointwise.bias"]
    first, last = entry["data_offsets"]
    entry["data_offsets"] = [first - 4, last - 4] if first else [4, last + 4]


def _shorter(header, pipeline):
    entry = header["fold_0/stem.pointwise.bias"]
    entry["shape"][0] -= 1
    entry["data_offsets"][1] -= 4


def _dtype_that_is_a_list(header, pipeline):
    header["fold_0/stem.pointwise.bias"]["dtype"] = ["F32"]


def _no_fold(header, pipeline):
    for name in [name for name in header if name != "__metadata__"]:
        del header[name]


DAMAGES = (
    _drop_tensor,
    _other_dtype,
    _beyond_the_end,
    _negative,
    _not_a_list,
    _overlapping,
    _shorter,
    _dtype_that_is_a_list,
    _no_fold,
)


@pytest.mark.parametrize("change", DAMAGES, ids=lambda change: change.__name__.strip("_"))
def test_content_that_does_not_fit(change, flat_bundle, tmp_path):
    refusal(rewritten(flat_bundle, tmp_path / "a.lightm", change))


MISSING = object()
HUGE = int("9" * 400)  # which no float holds
CT_NUMBERS = {"mean": 0, "std": 1, "percentile_00_5": 0}
# Keys of the pipeline and values that are refused when the file is read, before an image is.
WRONG = [
    *(((key,), MISSING) for key in ("name", "network", "input", "preprocessing", "inference", "output", "source")),
    (("name",), 1),
    (("network",), []),
    (("network", "type"), "UNETR"),
    (("network", "spatial_dims"), 4),
    (("network", "spatial_dims"), True),
    (("network", "num_classes"), 4),
    (("network", "features"), 64),
    (("network", "features"), 2**64 + 32),  # 32 in 64 bits
    (("network", "features"), "32"),
    (("network", "rvm_layers"), [10**9, 2, 2]),
    (("network", "rvm_layers"), [1] * 9),
    (("network", "rvm_layers"), None),
    (("network", "pooling"), [[2, 2]]),
    (("network", "pooling"), [[2, 2, 2]] * 3),
    (("input", "channels"), []),
    (("input", "channels"), [{}, {}]),
    (("input", "channels"), "all"),
    (("input", "channels", 0), None),
    (("input", "channels", 0, "name"), MISSING),
    (("input", "channels", 0, "scheme"), "Other"),
    (("input", "channels", 0, "use_mask"), "no"),
    (("input", "channels", 0), {"name": "a", "use_mask": False, "scheme": "CTNormalization", "statistics": [1]}),
    (("input", "channels", 0), {"name": "a", "use_mask": False, "scheme": "CTNormalization", "statistics": CT_NUMBERS}),
    *(
        (("input", "channels", 0), {"name": "a", "use_mask": False, "scheme": "CTNormalization", "statistics": numbers})
        for numbers in ({**CT_NUMBERS, "percentile_99_5": HUGE}, {**CT_NUMBERS, "percentile_99_5": -HUGE})
    ),
    (("input", "reader"), MISSING),
    (("input", "reader"), "OtherIO"),
    (("input", "reader"), ["SimpleITKIO"]),
    (("input", "file_ending"), MISSING),
    (("input", "file_ending"), ".docx"),
    (("input", "file_ending"), "/../mine.nii.gz"),
    (("input", "file_ending"), ""),
    (("preprocessing", "transpose_forward"), [0, 0, 1]),
    (("preprocessing", "transpose_forward"), [0, 1, 3]),
    (("preprocessing", "transpose_forward"), [0, 1]),
    (("preprocessing", "transpose_forward"), [2**64, 1, 2]),
    (("preprocessing", "spacing_mm"), [0.0, 1.0]),
    (("preprocessing", "spacing_mm"), [float("inf"), 1.0]),
    (("preprocessing", "spacing_mm"), [HUGE, 1.0]),
    (("preprocessing", "spacing_mm"), [1.0]),
    (("preprocessing", "resampling_data"), MISSING),
    (("preprocessing", "resampling_data", "order"), 2),
    (("preprocessing", "resampling_logits", "order"), 3),
    (("preprocessing", "resampling_data", "force_separate_z"), 1),
    (("preprocessing", "resampling_data", "anisotropy_threshold"), MISSING),
    (("preprocessing", "resampling_logits", "anisotropy_threshold"), float("nan")),
    (("preprocessing", "resampling_data", "anisotropy_threshold"), HUGE),
    (("inference", "patch_size"), ["a", "b"]),
    (("inference", "patch_size"), [HUGE, 16]),
    (("inference", "step"), HUGE),
    (("inference", "patch_size"), [16384, 1 << 20]),
    (("inference", "patch_size"), [16384, 16385]),
    (("inference", "step"), 1e-7),  # would run for years
    (("inference", "step"), 1e-300),
    (("inference", "step"), 1.5),
    (("inference", "step"), None),
    (("inference", "gaussian_sigma"), float("inf")),
    (("inference", "gaussian_sigma"), 1e9),
    (("inference", "gaussian_sigma"), 1e-200),
    (("inference", "mirroring_axes"), ["x"]),
    (("inference", "mirroring_axes"), [2]),
    (("inference", "mirroring_axes"), None),
    (("output", "num_classes"), 7),
    (("output", "labels"), MISSING),
    (("output", "labels"), None),
    (("output", "labels"), {"organ": "one"}),
    (("output", "labels"), {"organ": -1}),
    (("output", "labels"), {"organ": []}),
    (("output", "regions_class_order"), MISSING),
    (("output", "regions_class_order"), [1]),
    (("output", "regions_class_order"), [1, 2, 65536]),
    (("output", "regions_class_order"), [1, 2, -1]),
]


@pytest.mark.parametrize(("keys", "value"), WRONG, ids=[".".join(map(str, keys)) for keys, _ in WRONG])
def test_a_pipeline_that_is_not_usable(keys, value, flat_bundle, tmp_path):
    def change(header, pipeline):
        inner = pipeline
        for key in keys[:-1]:
            inner = inner[key]
        if value is MISSING:
            del inner[keys[-1]]
        else:
            inner[keys[-1]] = value

    message = refusal(rewritten(flat_bundle, tmp_path / "a.lightm", change))
    assert "update lightm-runtime" in message or "has 9 levels" in message or "numbers, expected" in message
    if value is MISSING:
        assert f"lacks {'.'.join(map(str, keys)).replace('.0', '[0]')}" in message


def test_more_channels_than_a_thread_takes_at_once(flat_bundle, tmp_path):
    """Feature maps of 1024 << 5 channels."""

    def change(header, pipeline):
        pipeline["network"] |= {"features": 1024, "rvm_layers": [1] * 5, "pooling": [[2, 2]] * 5}

    assert "has sizes that this engine does not run" in refusal(rewritten(flat_bundle, tmp_path / "a.lightm", change))


@pytest.mark.parametrize("factor", [1e-3, 1e-300])
def test_a_spacing_in_another_unit_is_named(factor, volume_bundle, tmp_path):
    """It would ask for terabytes, or for more voxels than an integer counts."""

    def change(header, pipeline):
        pipeline["preprocessing"] |= {"transpose_forward": [2, 0, 1], "spacing_mm": [1.0, 2.0, 4.0]}

    model = load(rewritten(volume_bundle, tmp_path / "a.lightm", change))
    image = np.ones((2, 20, 30, 40), np.float32)
    with pytest.raises(EngineError) as caught:
        model.segment(image, (2 / factor, 4 / factor, 1 / factor))
    sizes = " x ".join(f"{size / factor:.6g}" for size in (20, 30, 40))
    assert str(caught.value).startswith("too large for the engine: its spacing, ")
    assert f"the model's, 2 x 4 x 1 mm, (z, y, x), would make {sizes} voxels of its 20 x 30 x 40" in str(caught.value)

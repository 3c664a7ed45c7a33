"""ONNX files: the same logits as torch, with ONNX's own operators, and the reference script around them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from PIL import Image

from nnunetv2_lightm import cli
from nnunetv2_lightm.deploy import onnx_file
from nnunetv2_lightm.deploy.errors import ExportError
from nnunetv2_lightm.deploy.model_folder import read_model_folder
from nnunetv2_lightm.deploy.onnx_file import onnx_runtime, write_onnx
from nnunetv2_lightm.networks import lightm_unet_released

from ..model_folders import OWN_THRESHOLD, REGIONS, stock_network, write_model_folder
from ..pictures import write_every_png
from ..prediction import assert_same_segmentation, predicted_by_nnunet, write_images

onnx = pytest.importorskip("onnx", reason="needs '.[onnx]'")
pytest.importorskip("onnxruntime", reason="needs '.[onnx]'")
pytest.importorskip("onnxscript", reason="needs '.[onnx]'")


def small_network(dims: int, strides: list) -> dict:
    """LightMUNet as plans name it, with fewer layers: to trace all of them takes a minute."""
    return {
        "network_class_name": "nnunetv2_lightm.networks.LightMUNet",
        "arch_kwargs": {
            "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
            **{"features": 16, "rvm_layers": [1, 1], "bottleneck_rvm_layers": 1, "d_state": 4, "strides": strides},
        },
        "_kw_requires_import": ["conv_op"],
    }


FLAT = {"configuration": "2d", "spacing": (1.0, 1.0), "patch_size": (32, 32), "mirroring_axes": (1,)}
IMAGE = {"shape": (40, 37)}
VOLUME = {"patch_size": (16, 16, 16), "mirroring_axes": (0,)}
STOCK = {"trainer": "nnUNetTrainer"}
# A model of each kind, and an image that needs several tiles.
MODELS = {
    "2D, odd patch": ({**FLAT, "patch_size": (27, 35)}, IMAGE),
    "SegResNet": ({**FLAT, "trainer": "nnUNetTrainerSegResNet"}, IMAGE),
    "U-Mamba, PNG": (
        {
            **{**FLAT, "trainer": "nnUNetTrainerUMambaBot", "architecture": stock_network(2)},
            **{"reader": "NaturalImage2DIO", "file_ending": ".png"},
        },
        {**IMAGE, "ending": ".png"},
    ),
    "stock, 3D, two folds, turned by the reader": (
        {
            **{**VOLUME, **STOCK, "architecture": stock_network(3), "folds": (0, 1)},
            "reader": "SimpleITKIOWithReorient",
        },
        {"shape": (14, 20, 18), "orientation": "PIR"},
    ),
    "3D, thick slices by the plans' own threshold, cropped": (
        {
            **{**VOLUME, **STOCK, "architecture": small_network(3, [[1, 1, 1], [1, 2, 2], [2, 2, 2]])},
            **{"spacing": (1.6, 0.9, 0.9), "patch_size": (8, 17, 16), "transpose": (0, 2, 1)},
            "settings": OWN_THRESHOLD,
        },
        {"shape": (12, 24, 26), "spacing": (2.0, 0.7, 0.8), "margin": 3},
    ),
    "2D of slices, two channels, regions": (
        {
            **{**FLAT, **STOCK, "architecture": small_network(2, [[1, 1], [2, 2], [2, 2]])},
            **{"schemes": ("CTNormalization", "ZScoreNormalization"), "spacing": (0.9, 1.1)},
            **{"labels": REGIONS, "regions_class_order": (1, 2, 3)},
        },
        {"shape": (2, 40, 37), "spacing": (3.5, 1.0, 1.0)},
    ),
    "released": ({**FLAT, "trainer": "nnUNetTrainerLightMUNetReleased"}, IMAGE),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_script_around_onnx_predicts_as_nnunet(name, tmp_path, monkeypatch):
    options, image = MODELS[name]
    if name == "released":  # one residual block in each stage: that all are alike takes half a minute to show
        monkeypatch.setattr(lightm_unet_released, "RESIDUAL_BLOCKS", (1, 1, 1, 1))
    if name == "SegResNet":
        pytest.importorskip("monai")
    folder = write_model_folder(tmp_path / "model", **options)
    channels = len(options.get("schemes", "1"))
    files = write_images(tmp_path / "images", channels, **image)
    model, out = read_model_folder(folder), tmp_path / "onnx"
    comparison = write_onnx(model, out, check_images=tmp_path / "images")
    assert comparison.cases == ("case",)
    assert comparison.equal_labels > 0.999 and comparison.largest_difference < 1e-3 * comparison.largest_logit
    assert_standard(out, model)
    for fold, weights in model.weights.items():
        assert_any_batch(out / f"{fold}.onnx", model, weights, channels)
    found = tmp_path / f"found{options.get('file_ending', '.nii.gz')}"
    command = [sys.executable, str(out / "predict.py"), str(found), *map(str, files)]
    subprocess.run(command, check=True, capture_output=True)
    expected = predicted_by_nnunet(folder, [str(fold) for fold in options.get("folds", (0,))], files, tmp_path)
    assert_same_segmentation(found, expected)


def test_pictures_are_read_as_by_nnunet(tmp_path):
    """SimpleITK has 255 for a bit, 16 bits for colours and three channels for grey BMP."""
    from nnunetv2_lightm.deploy import onnx_reference  # it imports onnxruntime

    paths = write_every_png(tmp_path)
    grey = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)
    for name, image in {
        "grey.bmp": Image.fromarray(grey),
        "bits.bmp": Image.fromarray(grey > 100),
        "palette.bmp": Image.fromarray(grey).convert("RGB").quantize(16),
        "rgb.bmp": Image.fromarray(np.stack([grey, grey, 255 - grey], -1)),
        "grey.jpg": Image.fromarray(grey),
        "rgb.jpg": Image.fromarray(np.stack([grey, grey, 255 - grey], -1)),
    }.items():
        image.save(tmp_path / name)
        paths.append(tmp_path / name)
    refused = []
    for path in map(str, paths):
        try:
            expected, properties = NaturalImage2DIO().read_images([path])
        except AssertionError:
            refused.append(path)
            with pytest.raises(SystemExit, match="has 2 channels"):
                onnx_reference.read([path], "NaturalImage2DIO")
            continue
        image, spacing, geometry, turned = onnx_reference.read([path], "NaturalImage2DIO")
        np.testing.assert_array_equal(image, expected, err_msg=path)
        assert (spacing, turned) == (list(properties["spacing"]), None)
        assert (geometry.GetDimension(), geometry.GetSize()) == (2, image.shape[:1:-1])
    assert len(refused) == 1  # grey of 8 bits with opacity
    both, _, _, _ = onnx_reference.read(list(map(str, paths[:2])), "NaturalImage2DIO")
    assert both.shape[:2] == (2, 1)


def assert_standard(out, model) -> None:
    """ONNX's own operators, no functions, one output; the pipeline names the files."""
    pipeline = json.loads((out / "pipeline.json").read_text())
    assert pipeline["inference"]["patch_size"] == list(model.settings.patch_size)
    assert {path.name for path in out.glob("*.onnx")} == set(pipeline["network"]["sha256"])
    for name, sha256 in pipeline["network"]["sha256"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == sha256
        proto = onnx.load(out / name)
        onnx.checker.check_model(proto, full_check=True)
        assert [(opset.domain, opset.version >= 18) for opset in proto.opset_import] == [("", True)]
        assert not proto.functions and len(proto.graph.input) == len(proto.graph.output) == 1
        batch, channels, *patch = proto.graph.input[0].type.tensor_type.shape.dim
        assert batch.dim_param and channels.dim_value == model.input_channels
        assert [size.dim_value for size in patch] == list(model.settings.patch_size)


def assert_any_batch(path, model, weights, channels) -> None:
    image = torch.randn(3, channels, *model.settings.patch_size)
    model.network.load_state_dict(weights)
    with torch.no_grad():
        expected = model.network(image).numpy()
    np.testing.assert_allclose(onnx_runtime(path)(image), expected, atol=1e-3 * np.abs(expected).max(), rtol=0)


def export(*arguments) -> int:
    return cli.main(["export", *map(str, arguments), "--onnx"])


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path / "images", 1, **IMAGE)
    return write_model_folder(tmp_path / "model", **FLAT, **STOCK, architecture=stock_network(2))


@pytest.mark.slow
def test_command_writes_and_replaces_its_folder(folder, tmp_path, capsys):
    options = (folder, tmp_path / "onnx", "--check-images", tmp_path / "images")
    assert export(*options) == 0
    assert (
        "labels agree in 100 %" in (said := capsys.readouterr().out) and f"{tmp_path / 'onnx' / 'predict.py'}" in said
    )
    names = {path.name for path in (tmp_path / "onnx").iterdir()}
    assert names == {"fold_0.onnx", "pipeline.json", "predict.py", ".nnunetv2_lightm.json"}
    assert export(*options) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert export(*options, "--overwrite") == 0
    assert {path.name for path in tmp_path.iterdir()} == {"images", "model", "onnx"}


@pytest.mark.parametrize("broken", ["other labels", "nan", "other logits"])
def test_export_that_computes_otherwise_is_not_written(broken, folder, tmp_path, monkeypatch, capsys):
    network = read_model_folder(folder).network
    others = {"other labels": lambda x: x.flip(1), "nan": lambda x: x * np.nan, "other logits": lambda x: 1.5 * x}
    monkeypatch.setattr(onnx_file, "export_network", lambda network, patch, path: path.write_bytes(b"onnx"))
    monkeypatch.setattr(onnx_file, "onnx_runtime", lambda path: lambda patch: others[broken](network(patch)))
    assert export(folder, tmp_path / "onnx", "--check-images", tmp_path / "images") == 1
    said = capsys.readouterr().err
    assert ("NaN or infinite" if broken == "nan" else "computes otherwise than torch") in said
    assert {path.name for path in tmp_path.iterdir()} == {"images", "model"}


def test_operators_that_are_not_onnxs_own_are_refused():
    node = onnx.helper.make_node("FastGelu", ["x"], ["y"], domain="com.microsoft")
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy")
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("com.microsoft", 1)]
    proto = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [x], [y]), opset_imports=opsets)
    with pytest.raises(ExportError, match="com.microsoft"):
        onnx_file.inlined(proto)


def test_what_is_there_is_not_replaced(folder, tmp_path, capsys):
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "thesis.txt").write_text("mine")
    for out, named in ((tmp_path / "onnx", "not made by this command"), (folder, "lost with it")):
        assert export(folder, out, "--check-images", tmp_path / "images", "--overwrite") == 1
        assert named in capsys.readouterr().err
    assert (tmp_path / "onnx" / "thesis.txt").read_text() == "mine" and (folder / "plans.json").exists()
    assert export(folder, tmp_path / "a.onnx") == 1
    assert "is to be a folder" in capsys.readouterr().err


def test_missing_libraries_are_named_with_one_command(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("nnunetv2_lightm.extras.find_spec", lambda name: None if name.startswith("onnx") else name)
    assert export(folder, tmp_path / "onnx") == 1
    said = capsys.readouterr().err
    assert "needs onnx, onnxscript, onnxruntime, which are not installed: python -m pip install" in said
    for library in onnx_file.LIBRARIES:
        assert f'"{library}>=' in said

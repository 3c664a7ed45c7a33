"""``nnUNetv2_lightm export --zip``: what nnU-Net's own installer makes of it predicts as the model does."""

from __future__ import annotations

import io
import json
import zipfile

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import predict_entry_point, predict_entry_point_modelfolder
from nnunetv2.model_sharing.entry_points import install_from_zip_entry_point
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

from nnunetv2_lightm import cli
from nnunetv2_lightm.checkpoints.safe_loading import load_safely
from nnunetv2_lightm.deploy import nnunet_zip, stored
from nnunetv2_lightm.deploy.errors import ExportError
from nnunetv2_lightm.deploy.model_folder import read_model_folder

from ..model_folders import make_float16_too_coarse, stock_network, write_model_folder
from ..nnunet_in_process import Nnunet, threads_for_processes
from ..prediction import assert_same_segmentation, predicted_by_nnunet, write_images

FLAT = {"configuration": "2d", "spacing": (1.0, 1.0), "patch_size": (16, 16)}
MUON = "nnUNetTrainerLightMUNet_1epochs_2iters_seed0"
FOLDER = f"Dataset901_Drawn/{MUON}__nnUNetPlans__3d_fullres"


@pytest.fixture
def images(tmp_path):
    write_images(tmp_path / "images", 1, shape=(20, 24))
    return tmp_path / "images"


def export(*arguments) -> int:
    return cli.main(["export", "--zip", *map(str, arguments)])


@pytest.mark.slow
def test_installed_by_nnunet_it_predicts_as_the_model(tmp_path, capsys):
    """The commands are those that the export prints; nnUNet_results is empty before, the other folders are not set."""
    model = write_model_folder(tmp_path / "model", folds=(0, 1), trainer=MUON, mirroring_axes=(0, 2))
    (model / "dataset_fingerprint.json").write_text("{}")
    write_images(tmp_path / "images", 1, shape=(20, 30, 28))
    assert export(model, tmp_path / "a.zip", "--check-images", tmp_path / "images") == 0
    printed = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  nnUNetv2_")]
    (_, archive), (_, *options) = printed
    assert options[options.index("-f") :] == ["-f", "0", "1", "-i", "IMAGES", "-o", "SEGMENTATIONS"]

    results, common = tmp_path / "results", ("-device", "cpu", "-npp", 1, "-nps", 1)
    nnunet = Nnunet(tmp_path)
    with threads_for_processes({"nnUNet_results": results}) as patch:
        for name in ("nnUNet_raw", "nnUNet_preprocessed"):
            patch.delenv(name, raising=False)
        nnunet.run(install_from_zip_entry_point, archive)
        given = {"IMAGES": tmp_path / "images", "SEGMENTATIONS": tmp_path / "small"}
        nnunet.run(predict_entry_point, *(given.get(word, word) for word in options), *common)
        full = ("-m", model, "-i", tmp_path / "images", "-o", tmp_path / "full", "-f", 0, 1)
        nnunet.run(predict_entry_point_modelfolder, *full, *common)
    assert_same_segmentation(tmp_path / "small" / "case.nii.gz", tmp_path / "full" / "case.nii.gz")
    installed = results / FOLDER
    assert sorted(path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()) == [
        "dataset.json",
        "dataset_fingerprint.json",
        "fold_0/checkpoint_final.pth",
        "fold_1/checkpoint_final.pth",
        "plans.json",
    ]
    assert read_model_folder(installed).mirroring_axes == (0, 2)


def test_checkpoints_hold_what_prediction_reads_and_matrices_in_float16(tmp_path, images, monkeypatch):
    monkeypatch.setattr(stored, "EQUAL_LABELS", 0.95)  # of a patch of 256 voxels one would be too many
    folder = write_model_folder(tmp_path / "model", folds=("all",), **FLAT)
    path = folder / "fold_all" / "checkpoint_final.pth"
    trained = torch.load(path)
    momenta = {name: torch.zeros_like(tensor) for name, tensor in trained["network_weights"].items()}
    more = {"optimizer_state": momenta, "logging": {"my_fantastic_logging": list(range(10))}, "current_epoch": 7}
    torch.save(trained | more, path)
    assert export(folder, tmp_path / "a.zip", "-f", "all", "--check-images", images) == 0
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        archive.extractall(tmp_path / "results")
    (small,) = (tmp_path / "results").rglob("checkpoint_final.pth")
    content = load_safely(small)
    assert small.stat().st_size < 0.3 * path.stat().st_size
    assert content.keys() == trained.keys() and content["init_args"] == trained["init_args"]
    assert content["inference_allowed_mirroring_axes"] == (0, 1)
    for name, tensor in trained["network_weights"].items():
        found = content["network_weights"][name]
        vector = tensor.ndim == 1 or name.endswith("A_log")
        assert found.dtype == (torch.float32 if vector else torch.float16)
        torch.testing.assert_close(found.float(), tensor, rtol=1e-3, atol=1e-7)

    network = read_model_folder(folder, ["all"]).network
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    load_pretrained_weights(network, small)
    taken = network.state_dict()
    assert all(tensor.dtype == torch.float32 for tensor in taken.values())
    name = "bottleneck.0.vssm.in_proj.weight"
    assert torch.equal(taken[name], content["network_weights"][name].float()) and taken[name].any()


@pytest.mark.parametrize("trainer", ["nnUNetTrainerLightMUNetReleased", "nnUNetTrainerLightMUNetConv3"])
def test_networks_that_the_engine_does_not_run_have_a_zip_too(trainer, tmp_path, images):
    folder = write_model_folder(tmp_path / "model", trainer=trainer, **FLAT)
    assert export(folder, tmp_path / "a.zip", "--float32", "--check-images", images) == 0
    entries = nnunet_zip.read_entries(tmp_path / "a.zip")
    assert f"Dataset901_Drawn/{trainer}__nnUNetPlans__2d/fold_0/checkpoint_final.pth" in entries


def test_nnunets_own_network_whose_encoder_has_two_names(tmp_path, images, monkeypatch):
    """The decoder has the encoder too, and a block its layers by two names: stored once, whatever the names."""
    monkeypatch.setattr(stored, "EQUAL_LABELS", 0.95)  # of a patch of 256 voxels one would be too many
    options = {**FLAT, "architecture": stock_network(2), "trainer": "nnUNetTrainer"}
    folder = write_model_folder(tmp_path / "model", **options)
    trained = torch.load(folder / "fold_0" / "checkpoint_final.pth")["network_weights"]
    (image,) = images.iterdir()
    expected = predicted_by_nnunet(folder, ["0"], [image], tmp_path)
    sizes, parameters = {}, sum(p.numel() for p in read_model_folder(folder).network.parameters())
    for name, more in (("half", ()), ("whole", ("--float32",))):
        assert export(folder, tmp_path / f"{name}.zip", "--check-images", images, *more) == 0
        entries = nnunet_zip.read_entries(tmp_path / f"{name}.zip")
        (small,) = (content for entry, content in entries.items() if entry.endswith(".pth"))
        tensors = torch.load(io.BytesIO(small))["network_weights"]
        assert tensors.keys() == trained.keys()
        memory = {tensor.data_ptr(): tensor.numel() * tensor.itemsize for tensor in tensors.values()}
        sizes[name] = sum(memory.values())
        for key, tensor in tensors.items():
            torch.testing.assert_close(tensor.float(), trained[key], rtol=1e-3, atol=1e-7)
        with zipfile.ZipFile(tmp_path / f"{name}.zip") as archive:
            archive.extractall(tmp_path / name)
    assert sizes["whole"] == 4 * parameters and sizes["half"] < 0.6 * sizes["whole"]
    assert (tmp_path / "half.zip").stat().st_size < 0.8 * (tmp_path / "whole.zip").stat().st_size
    (installed,) = (tmp_path / "whole").glob("*/*")
    (tmp_path / "again").mkdir()
    assert_same_segmentation(predicted_by_nnunet(installed, ["0"], [image], tmp_path / "again"), expected)


def test_the_comparison_leaves_the_network_as_it_was(tmp_path, images):
    options = {**FLAT, "architecture": stock_network(2), "trainer": "nnUNetTrainer", "folds": (0, 1)}
    model = read_model_folder(write_model_folder(tmp_path / "model", **options))
    stored.stored_weights(model, half=False, check_images=images)
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(tensor, model.weights["fold_0"][name])
    assert all(isinstance(parameter, torch.nn.Parameter) for parameter in model.network.parameters())


def test_the_same_model_makes_the_same_file(tmp_path, images):
    folder = write_model_folder(tmp_path / "model", **FLAT)
    for name in ("a.zip", "b.zip"):
        assert export(folder, tmp_path / name, "--float32", "--check-images", images) == 0
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_float16_that_changes_labels_is_refused(tmp_path, images, capsys):
    folder = write_model_folder(tmp_path / "model", **FLAT)
    make_float16_too_coarse(folder, 0)
    assert export(folder, tmp_path / "a.zip", "--check-images", images) == 1
    assert "--float32" in capsys.readouterr().err and not (tmp_path / "a.zip").exists()
    assert export(folder, tmp_path / "a.zip", "--check-images", images, "--float32") == 0


@pytest.mark.parametrize("plans", [{"dataset_name": "../../bin"}, {"dataset_name": "Liver"}, {"plans_name": "a/b"}])
def test_names_that_no_folder_of_nnunet_has_are_refused(plans, tmp_path, images, capsys):
    folder = write_model_folder(tmp_path / "model", plans=plans, **FLAT)
    assert export(folder, tmp_path / "a.zip", "--float32", "--check-images", images) == 1
    assert "plans.json: the model would be installed as" in capsys.readouterr().err
    assert not (tmp_path / "a.zip").exists()


def test_what_is_there_stays_unless_asked_and_ours(tmp_path, images, capsys):
    folder = write_model_folder(tmp_path / "model", **FLAT)
    out, options = tmp_path / "a.zip", ("--float32", "--check-images", images)
    assert export(folder, out, *options) == 0
    assert export(folder, out, *options) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert export(folder, out, *options, "--overwrite") == 0
    mine = tmp_path / "mine.zip"
    with zipfile.ZipFile(mine, "w") as archive:
        archive.writestr("thesis.txt", "mine")
    before = mine.read_bytes()
    for path, said in ((mine, "not written by this command"), (folder / "plans.json", "lost with it")):
        assert export(folder, path, *options, "--overwrite") == 1
        assert said in capsys.readouterr().err
    assert mine.read_bytes() == before and json.loads((folder / "plans.json").read_text())


def test_a_zip_that_is_damaged_or_of_others_is_named(tmp_path):
    path = tmp_path / "a.zip"
    nnunet_zip.write_entries(path, {"a/plans.json": b"{}"})
    assert nnunet_zip.read_entries(path) == {"a/plans.json": b"{}"}
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ExportError, match="a.zip: is no zip"):
        nnunet_zip.read_entries(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("thesis.txt", "mine")
    with pytest.raises(ExportError, match="not one that"):
        nnunet_zip.read_entries(path)

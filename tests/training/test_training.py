"""The options of `nnUNetv2_train`."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from batchgeneratorsv2.transforms.noise import gaussian_blur
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2, nnUNetDatasetNumpy
from nnunetv2.training.logging import nnunet_logger

from ..nnunet_in_process import TRAINER

pytestmark = pytest.mark.slow

CUBES = "Dataset401_Cubes"
TWO_EPOCHS = "nnUNetTrainerLightMUNet_2epochs_1iters"


@pytest.fixture(scope="module")
def cubes(nnunet):
    nnunet.make_dataset(CUBES, "3d_fullres", shape=(8, 16, 16))
    return nnunet


@pytest.fixture(scope="module")
def trained(cubes):
    """The fold of a finished training with --npz."""
    return cubes.train(CUBES, "3d_fullres", "--npz", trainer=TWO_EPOCHS)


def load(fold, name="checkpoint_final.pth"):
    return torch.load(fold / name, weights_only=False)


def segmentation(fold):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(fold / "validation" / "case_2.nii.gz")))


def test_npz(trained):
    probabilities = np.load(trained / "validation" / "case_2.npz")["probabilities"]
    assert probabilities.shape == (3, 8, 16, 16)
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-3)
    np.testing.assert_array_equal(probabilities.argmax(0), segmentation(trained))


def test_val(cubes, trained):
    summary, checkpoint = trained / "validation" / "summary.json", trained / "checkpoint_final.pth"
    expected, written = json.loads(summary.read_text()), checkpoint.stat().st_mtime_ns
    shutil.rmtree(summary.parent)
    cubes.train(CUBES, "3d_fullres", "--val", "--npz", trainer=TWO_EPOCHS)
    assert json.loads(summary.read_text()) == expected
    assert checkpoint.stat().st_mtime_ns == written, "--val does not train"


def test_val_best(cubes, trained):
    """The best checkpoint is made one that sees nothing but lesions, so that one knows it again."""
    path = trained / "checkpoint_best.pth"
    best = load(trained, path.name)
    best["network_weights"]["decoder.seg_layers.0.pointwise.bias"] += torch.tensor([0.0, 0.0, 1e3])
    torch.save(best, path)
    cubes.train(CUBES, "3d_fullres", "--val", "--val_best", "--npz", trainer=TWO_EPOCHS)
    assert (segmentation(trained) == 2).all()
    cubes.train(CUBES, "3d_fullres", "--val", "--npz", trainer=TWO_EPOCHS)
    assert not (segmentation(trained) == 2).all()


def test_fold_all(cubes):
    fold = cubes.train(CUBES, "3d_fullres", fold="all")
    assert fold.name == "fold_all" and (fold / "checkpoint_final.pth").is_file()
    assert sorted(path.name for path in (fold / "validation").glob("*.gz")) == [f"case_{i}.nii.gz" for i in range(3)]


def test_disable_checkpointing(cubes):
    fold = cubes.train(CUBES, "3d_fullres", "--disable_checkpointing", trainer="nnUNetTrainerLightMUNet_2epochs_2iters")
    assert not list(fold.rglob("*.pth*"))
    assert (fold / "validation" / "summary.json").is_file()


def test_num_gpus_1(cubes):
    fold = cubes.train(CUBES, "3d_fullres", "-num_gpus", 1, trainer="nnUNetTrainerLightMUNetPaperSGD_1epochs_1iters")
    assert (fold / "checkpoint_final.pth").is_file()


def test_use_compressed_is_gone_from_nnunet(cubes, capsys):
    """2.8 has no such option: it reads its compressed files as they are."""
    with pytest.raises(SystemExit):
        cubes.train(CUBES, "3d_fullres", "--use_compressed")
    assert "unrecognized arguments: --use_compressed" in capsys.readouterr().err


def test_compressed_npz_of_older_versions(cubes):
    plans = cubes.plans(CUBES)
    plans["configurations"]["3d_npz"] = {"inherits_from": "3d_fullres", "data_identifier": "nnUNetPlans_3d_npz"}
    cubes.plans_file(CUBES).write_text(json.dumps(plans))
    source, target = (cubes.plans_file(CUBES).with_name(f"nnUNetPlans_{name}") for name in ("3d_fullres", "3d_npz"))
    target.mkdir()
    dataset = nnUNetDatasetBlosc2(str(source))
    for case in dataset.identifiers:
        data, seg, _, properties = dataset.load_case(case)
        nnUNetDatasetNumpy.save_case(data[:], seg[:], properties, str(target / case))
    fold = cubes.train(CUBES, "3d_npz")
    assert (fold / "validation" / "summary.json").is_file()


class RecordingWandb:
    """What nnU-Net asks of wandb, which is not installed with it."""

    def __init__(self):
        self.step, self.logged, self.summary, self.settings = 0, {}, {}, {}
        self.config = SimpleNamespace(update=self.settings.update)

    def init(self, **options):
        self.options = options
        return self

    def log(self, values, step):
        for key, value in values.items():
            self.logged.setdefault(key, {})[step] = value


def test_wandb(cubes, monkeypatch):
    wandb = RecordingWandb()
    monkeypatch.setattr(nnunet_logger, "wandb", wandb)
    monkeypatch.setenv("nnUNet_wandb_enabled", "1")
    monkeypatch.setenv("nnUNet_wandb_mode", "offline")
    trainer = "nnUNetTrainerLightMUNet_2epochs_3iters"
    fold = cubes.train(CUBES, "3d_fullres", trainer=trainer)
    assert wandb.options["mode"] == "offline" and wandb.options["dir"] == str(fold)
    assert wandb.settings["hparas"]["initial_lr"] == 1e-3
    assert wandb.settings["configuration"] == "3d_fullres"
    logging = load(fold)["logging"]
    for key in ("train_losses", "val_losses", "lrs", "ema_fg_dice"):
        assert wandb.logged[key] == dict(enumerate(logging[key])), key
    assert "final_val/foreground_dice" in wandb.summary


def test_same_seed_same_weights(cubes, monkeypatch):
    """Bit for bit, on two threads, without augmentation workers: those draw from random numbers that nobody seeds.

    nnU-Net's blurring takes the faster of two implementations by the clock, so the clock has to stand still.
    """
    monkeypatch.setattr(gaussian_blur, "time", lambda: 0.0)
    monkeypatch.setattr("multiprocessing.cpu_count", lambda: 2)

    def train(seed):
        np.random.seed(seed)
        torch.manual_seed(seed)
        return load(cubes.train(CUBES, "3d_fullres", trainer=TRAINER))["network_weights"]

    first, second, other = train(1), train(1), train(2)
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())
    assert any(not torch.equal(weight, other[name]) for name, weight in first.items())

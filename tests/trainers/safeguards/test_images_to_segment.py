"""The images to segment: faults that nnU-Net's readers hide or ignore."""

from __future__ import annotations

import json
import os
import shutil
import sys

import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.inference.predict_from_raw_data import (
    nnUNetPredictor,
    predict_entry_point,
    predict_entry_point_modelfolder,
)
from PIL import Image

from nnunetv2_lightm import LightMUNet
from nnunetv2_lightm.trainers.safeguards import ImagesRefusedError

from ...nnunet_in_process import threads_for_processes
from .conftest import NAME, TRAINER
from .small_images import AFFINE, MOVED, TILTED, image, save, with_nan


@pytest.fixture
def predict(request, dataset, tmp_path, monkeypatch):
    """Predict with an untrained model of two channels; returns the segmentations. The parameter names a trainer."""
    name = getattr(request, "param", TRAINER)
    names = {"0": "CT", "1": "T1"}
    dataset.change("dataset.json", lambda content: content.update(channel_names=names))
    dataset.change("nnUNetPlans.json", complete_plans)
    trainer = dataset.trainer(name)
    trainer.initialize()
    shutil.copy(dataset.base / "dataset.json", trainer.output_folder_base)
    shutil.copy(dataset.base / "nnUNetPlans.json", os.path.join(trainer.output_folder_base, "plans.json"))
    trainer.save_checkpoint(os.path.join(trainer.output_folder, "checkpoint_final.pth"))
    output = tmp_path / "output"

    def run(images, command=predict_entry_point_modelfolder):
        workers = 1 if command is predict_entry_point_modelfolder else 0
        model = ("-m", trainer.output_folder_base) if workers else ("-d", NAME, "-c", "3d_fullres", "-tr", name)
        options = ("-f", 0, "-device", "cpu", "--disable_tta", "-npp", workers, "-nps", workers)
        monkeypatch.setattr(sys, "argv", ["predict", *map(str, ("-i", images, "-o", output, *model, *options))])
        with threads_for_processes({}):
            command()
        return sorted(path.name for path in output.glob("*.nii.gz"))

    return run


def complete_plans(plans: dict) -> None:
    """What else prediction needs, as nnU-Net plans it."""
    plans.update(
        image_reader_writer="SimpleITKIO",
        transpose_forward=[0, 1, 2],
        transpose_backward=[0, 1, 2],
        original_median_shape_after_transp=[8, 16, 16],
    )
    resampling = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    configuration = plans["configurations"]["3d_fullres"]
    configuration.update(
        preprocessor_name="DefaultPreprocessor",
        spacing=[1.6, 0.7, 0.7],
        normalization_schemes=["ZScoreNormalization"] * 2,
        use_mask_for_norm=[False] * 2,
    )
    for name in ("data", "seg", "probabilities"):
        configuration[f"resampling_fn_{name}"] = "resample_data_or_seg_to_shape"
        configuration[f"resampling_fn_{name}_kwargs"] = resampling | {"is_seg": name == "seg"}
    plans["foreground_intensity_properties_per_channel"] = {
        str(channel): {"mean": 0.0, "std": 1.0, "percentile_00_5": -3.0, "percentile_99_5": 3.0} for channel in range(2)
    }


@pytest.fixture
def images(tmp_path):
    """Two cases of two channels."""
    for case in ("a", "b"):
        for channel in range(2):
            save(tmp_path / f"images/{case}_{channel:04d}.nii.gz", image(channel))
    return tmp_path / "images"


COMMANDS = pytest.mark.parametrize("command", [predict_entry_point, predict_entry_point_modelfolder])


@COMMANDS
@pytest.mark.slow
def test_sound_images_are_segmented(predict, images, command):
    assert predict(images, command) == ["a.nii.gz", "b.nii.gz"]


def refused(predict, images, monkeypatch, words: str, command=predict_entry_point) -> None:
    def computed(*_):
        raise AssertionError("the network was called")

    monkeypatch.setattr(LightMUNet, "forward", computed)
    with pytest.raises(ImagesRefusedError, match=words):
        predict(images, command)


@COMMANDS
@pytest.mark.parametrize(("lost", "name"), [("b_0001", "T1"), ("b_0000", "CT")])
def test_a_missing_channel_is_named_before_anything_is_computed(predict, images, monkeypatch, lost, name, command):
    (images / f"{lost}.nii.gz").unlink()
    refused(
        predict, images, monkeypatch, rf"case b lacks {lost}\.nii\.gz \({name}\) in .*/images: there is b_", command
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: save(folder / "a_0002.nii.gz", image()), r"case a has 3 channels, 2 are needed \(CT, T1\)"),
        (lambda folder: (folder / "a_0001.nii.gz").rename(folder / "a_0003.nii.gz"), r"lacks a_0001.nii.gz \(T1\)"),
        (lambda folder: (folder / "a_0001.nii.gz").rename(folder / "a_T1.nii.gz"), "a_T1.nii.gz has no channel number"),
        (lambda folder: save(folder / "c.nii.gz", image()), "c.nii.gz has no channel number.*c_0000.nii.gz"),
        (lambda folder: save(folder / "a_0001.nii.gz", image()[1:]), "a_0001.nii.gz is .* voxels and .*a_0000.nii.gz"),
        (lambda folder: save(folder / "a_0001.nii.gz", image(), AFFINE * 2), "a_0001.nii.gz lies up to .* away"),
        (
            lambda folder: [save(folder / f"a_000{channel}.nii.gz", image(), TILTED) for channel in (0, 1)],
            "a_0000.nii.gz: SimpleITKIO, the model's reader, refuses its tilted axes",
        ),
        (lambda folder: with_nan(folder / "b_0000.nii.gz"), "b_0000.nii.gz has 1 NaN"),
        (lambda folder: os.truncate(folder / "b_0000.nii.gz", 500), "b_0000.nii.gz is truncated"),
        (lambda folder: shutil.rmtree(folder), "is not a folder"),
        (lambda folder: [path.unlink() for path in folder.iterdir()], r"holds no image CASE_0000\.nii\.gz"),
    ],
)
def test_other_faults_of_images_to_segment(predict, images, monkeypatch, change, words):
    change(images)
    refused(predict, images, monkeypatch, words)


@pytest.mark.parametrize("place", [".", ".."])
def test_channels_in_another_order_by_a_dataset_json_nearby(predict, images, monkeypatch, place):
    (images / place / "dataset.json").write_text(json.dumps({"channel_names": {"0": "T1", "1": "CT"}}))
    refused(
        predict, images, monkeypatch, r"the channels are T1, CT by the dataset.json of .*, and CT, T1 in the training"
    )


def test_a_list_of_files_in_the_wrong_order_is_refused(predict, images, dataset):
    predictor = predictor_of(dataset)
    files = [str(images / f"a_{channel:04d}.nii.gz") for channel in (1, 0)]
    with pytest.raises(ImagesRefusedError, match="wrong order: a_0001.nii.gz, a_0000.nii.gz"):
        predictor.predict_from_files_sequential([files], None)


def test_a_list_may_have_files_of_any_names(predict, images, dataset):
    predictor = predictor_of(dataset)
    files = [
        str((images / f"a_000{channel}.nii.gz").rename(images / f"a_000{channel + 3}.nii.gz")) for channel in (0, 1)
    ]
    lists, *_ = predictor._manage_input_and_output_lists([files], None)
    assert lists == [files]
    with pytest.raises(ImagesRefusedError, match="case a lacks a_0001.nii.gz"):
        predictor._manage_input_and_output_lists([files[:1]], None)


def test_channels_that_lie_elsewhere_are_a_note(predict, images, dataset, capsys):
    """As with nnU-Net, which warns of them only while it reads."""
    save(images / "a_0001.nii.gz", image(), MOVED)
    files = [str(images / f"a_000{channel}.nii.gz") for channel in (0, 1)]
    predictor_of(dataset)._manage_input_and_output_lists([files], None)
    assert "a_0001.nii.gz lies elsewhere than its partner" in capsys.readouterr().out


def test_a_predictor_without_a_trainer_is_left_alone(predict, images, dataset):
    """As nnUNetPredictor.manual_initialization leaves it."""
    predictor = predictor_of(dataset)
    predictor.trainer_name = None
    lists, *_ = predictor._manage_input_and_output_lists([[str(images / "b_0000.nii.gz")]], None)
    assert len(lists) == 1


def predictor_of(dataset) -> nnUNetPredictor:
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    (model,) = (dataset.results / NAME).iterdir()
    predictor.initialize_from_trained_model_folder(str(model), (0,))
    return predictor


@pytest.mark.parametrize("predict", ["nnUNetTrainer_1epochs_1iters_seed0", "nnUNetTrainerAdam_2epochs"], indirect=True)
@COMMANDS
@pytest.mark.slow
def test_stock_trainers_with_a_budget_are_watched_too(predict, images, command, monkeypatch):
    """They reach nnU-Net through this package."""
    assert predict(images, command) == ["a.nii.gz", "b.nii.gz"]
    (images / "b_0001.nii.gz").unlink()
    monkeypatch.setattr(PlainConvUNet, "forward", lambda *_: pytest.fail("the network was called"))
    with pytest.raises(ImagesRefusedError, match=r"case b lacks b_0001\.nii\.gz \(T1\)"):
        predict(images, command)


@pytest.mark.parametrize("predict", ["nnUNetTrainer", "nnUNetTrainer_20epochs"], indirect=True)
def test_other_trainers_are_left_alone(predict, images, dataset):
    """What nnU-Net finds in itself never comes to this package, also where the name ends as ours do."""
    predictor = predictor_of(dataset)
    lists, *_ = predictor._manage_input_and_output_lists([[str(images / "b_0000.nii.gz")]], None)
    assert len(lists) == 1


def test_colour_images_are_counted_by_their_channels(tmp_path):
    from nnunetv2_lightm.images.cases import check_cases

    rgb = np.random.default_rng(0).integers(0, 255, (9, 8, 3)).astype(np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a_0000.png")
    Image.fromarray(rgb[..., 0]).save(tmp_path / "b_0000.png")
    cases = {case: [tmp_path / f"{case}_0000.png"] for case in ("a", "b")}
    faults = check_cases(cases, {"0": "R", "1": "G", "2": "B"}, ".png").faults
    assert len(faults) == 1 and "case b lacks b_0001.png (G), b_0002.png (B)" in faults[0]

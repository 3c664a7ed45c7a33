"""``nnUNetv2_predict``, ``nnUNetv2_predict_from_modelfolder`` and nnUNetPredictor with our trainer's models."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunetv2_lightm import LightMUNet

from .workspace import TEST_CASES, assert_equal, differ, probabilities, segmentations

pytestmark = pytest.mark.slow


def make_predictor(workspace, folds=(0, 1, 2, 3, 4), configuration="3d_fullres", **options):
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False, **options)
    predictor.initialize_from_trained_model_folder(str(workspace.model(configuration)), folds)
    return predictor


@pytest.fixture
def forwards(monkeypatch):
    """Shapes of all inputs of the network."""
    shapes, forward = [], LightMUNet.forward

    def counted(self, image):
        shapes.append(tuple(image.shape))
        return forward(self, image)

    monkeypatch.setattr(LightMUNet, "forward", counted)
    return shapes


def test_folder(workspace, predicted):
    found = segmentations(predicted)
    assert list(found) == TEST_CASES
    for case, segmentation in found.items():
        image = sitk.ReadImage(str(workspace.raw / "imagesTs" / f"{case}_0000.nii.gz"))
        assert segmentation.shape == sitk.GetArrayFromImage(image).shape
        assert len(np.unique(segmentation)) > 1, "else the tests compare nothing"


def test_list_of_files(workspace, predicted, tmp_path):
    """Any files under any names, each a list of its channels."""
    images = [[str(workspace.raw / "imagesTs" / f"{case}_0000.nii.gz")] for case in TEST_CASES[:2]]
    outputs = [str(tmp_path / name) for name in ("first", "second")]
    make_predictor(workspace).predict_from_files(images, outputs, num_processes_preprocessing=1)
    found = segmentations(tmp_path)
    expected = segmentations(predicted)
    assert_equal(found, {"first": expected["ts_0"], "second": expected["ts_1"]})


def test_five_folds_are_averaged(workspace):
    data = torch.randn(1, 16, 24, 18)
    single = [make_predictor(workspace, (fold,)).predict_logits_from_preprocessed_data(data) for fold in range(5)]
    assert all((a != b).any() for a, b in zip(single, single[1:]))
    averaged = make_predictor(workspace, None).predict_logits_from_preprocessed_data(data)
    torch.testing.assert_close(averaged.float(), torch.stack(single).float().mean(0), atol=1e-2, rtol=1e-2)


def test_folds_default_to_all_five(workspace, predicted, tmp_path):
    workspace.predict(tmp_path, "--save_probabilities", "-f", 0, 1, 2, 3, 4)
    assert_equal(probabilities(tmp_path), probabilities(predicted))


def test_save_probabilities(predicted):
    found, expected = probabilities(predicted), segmentations(predicted)
    assert list(found) == TEST_CASES
    for case, values in found.items():
        np.testing.assert_allclose(values.sum(0), 1, atol=1e-3)
        assert (values.argmax(0) == expected[case]).all()


def test_mirroring_is_the_mean_over_flips(workspace, forwards):
    predictor = make_predictor(workspace, (0,))
    patch, mirrored, network = torch.randn(1, 1, 16, 16, 16), [], predictor.network.eval()
    with torch.inference_mode():
        for axes in ((), (2,), (3,), (4,), (2, 3), (2, 4), (3, 4), (2, 3, 4)):
            mirrored.append(network(patch.flip(axes)).flip(axes))
        forwards.clear()
        plain = predictor._internal_maybe_mirror_and_predict(patch)
        assert len(forwards) == 1
        torch.testing.assert_close(plain, mirrored[0])
        predictor.use_mirroring = True
        averaged = predictor._internal_maybe_mirror_and_predict(patch)
    assert len(forwards) == 1 + 8
    torch.testing.assert_close(averaged, torch.stack(mirrored).mean(0))
    assert (averaged - plain).abs().max() > 1e-3


def test_step_size(workspace, predicted, forwards, tmp_path):
    tiles = {}
    for step_size in (0.5, 1):
        forwards.clear()
        output = tmp_path / str(step_size)
        workspace.predict(output, "--save_probabilities", "-step_size", step_size, "-f", 0)
        tiles[step_size] = len(forwards)
        assert set(forwards) == {(1, 1, 16, 16, 16)}
    assert tiles[1] < tiles[0.5]
    assert differ(probabilities(tmp_path / "1"), probabilities(tmp_path / "0.5"))


def test_continue_prediction(workspace, predicted, forwards, tmp_path):
    shutil.copytree(predicted, tmp_path, dirs_exist_ok=True)
    (tmp_path / "ts_1.nii.gz").unlink()
    (tmp_path / "ts_2.nii.gz").write_text("kept")
    workspace.predict(tmp_path, "--continue_prediction")
    assert (tmp_path / "ts_2.nii.gz").read_text() == "kept"
    (tmp_path / "ts_2.nii.gz").unlink()
    before = segmentations(predicted)
    assert_equal(segmentations(tmp_path), {case: before[case] for case in TEST_CASES[:2]})
    forwards.clear()
    shutil.copy(predicted / "ts_2.nii.gz", tmp_path)
    workspace.predict(tmp_path, "--continue_prediction")
    assert not forwards, "nothing is left to predict"


def test_parts(workspace, predicted, tmp_path):
    """Two calls share the images; with workers, as without them nnU-Net predicts everything."""
    parts = []
    for part in range(2):
        output = tmp_path / str(part)
        workspace.predict(output, "-num_parts", 2, "-part_id", part, "-npp", 1, "-nps", 1)
        parts.append(segmentations(output))
    assert [list(part) for part in parts] == [["ts_0", "ts_2"], ["ts_1"]]
    assert_equal({**parts[0], **parts[1]}, segmentations(predicted))


def test_best_checkpoint(workspace, tmp_path):
    """After one epoch the best weights are the final ones; other weights under that name change the result."""
    for checkpoint in ("final", "best"):
        options = ("-f", 0, "-chk", f"checkpoint_{checkpoint}.pth", "--save_probabilities")
        workspace.predict(tmp_path / checkpoint, *options)
    assert_equal(probabilities(tmp_path / "final"), probabilities(tmp_path / "best"))
    file = workspace.model() / "fold_0" / "checkpoint_best.pth"
    original = file.read_bytes()
    checkpoint = torch.load(file, weights_only=False)
    (bias,) = (values for name, values in checkpoint["network_weights"].items() if values.shape == (3,))
    bias[1] += 1
    try:
        torch.save(checkpoint, file)
        workspace.predict(tmp_path / "changed", *options)
    finally:
        file.write_bytes(original)
    assert differ(probabilities(tmp_path / "changed"), probabilities(tmp_path / "best"))


def test_model_folder(workspace, predicted, monkeypatch, tmp_path):
    """The folder alone is enough: no nnU-Net folder is set, and the model lies elsewhere."""
    for name in workspace.environment:
        monkeypatch.delenv(name)
    model = shutil.copytree(workspace.model(), tmp_path / "model", copy_function=os.symlink)
    images = ("-i", workspace.raw / "imagesTs", "-o", tmp_path / "output", "-m", model)
    options = ("--disable_tta", "--save_probabilities", "-device", "cpu", "-npp", 1, "-nps", 1)
    workspace.run("nnUNetv2_predict_from_modelfolder", *images, *options)
    assert_equal(probabilities(tmp_path / "output"), probabilities(predicted))


def test_python_api(workspace, predicted):
    """The ways of nnU-Net's inference/readme.md other than files in, files out."""
    expected, seen = segmentations(predicted), probabilities(predicted)
    predictor = make_predictor(workspace, None)
    files = [[str(workspace.raw / "imagesTs" / f"{case}_0000.nii.gz")] for case in TEST_CASES]
    images, properties = zip(*(SimpleITKIO().read_images(file) for file in files))

    segmentation, probability = predictor.predict_single_npy_array(images[0], properties[0], None, None, True)
    assert_equal({"seg": segmentation, "prob": probability}, {"seg": expected["ts_0"], "prob": seen["ts_0"]})
    results = predictor.predict_from_list_of_npy_arrays(list(images), None, list(properties), None, 1, False, 1)
    assert_equal(dict(zip(TEST_CASES, results)), expected)
    assert_equal(dict(zip(TEST_CASES, predictor.predict_from_files_sequential(files, None))), expected)
    results = predictor.predict_from_files(files, None, True, num_processes_preprocessing=1)
    assert_equal({case: result[1] for case, result in zip(TEST_CASES, results)}, seen)


def test_cascade_takes_the_previous_stage(workspace, forwards, tmp_path):
    workspace.predict(tmp_path / "lowres", "-f", "all", configuration="3d_lowres")
    assert list(segmentations(tmp_path / "lowres")) == TEST_CASES

    def cascade(previous):
        folder = tmp_path / f"from_{previous.name}"
        options = ("-f", "all", "-prev_stage_predictions", previous, "--save_probabilities")
        workspace.predict(folder, *options, configuration="3d_cascade_fullres")
        return probabilities(folder)

    forwards.clear()
    found = cascade(tmp_path / "lowres")
    assert set(forwards) == {(1, 1 + 2, 16, 16, 16)}, "the image and one channel for each foreground label"
    blank = shutil.copytree(tmp_path / "lowres", tmp_path / "blank")
    for file in blank.glob("*.nii.gz"):
        sitk.WriteImage(sitk.ReadImage(str(file)) * 0, str(file))
    assert differ(cascade(blank), found)


def test_cascade_needs_the_previous_stage(workspace, tmp_path):
    with pytest.raises(AssertionError, match="3d_lowres"):
        workspace.predict(tmp_path, "-f", "all", configuration="3d_cascade_fullres")

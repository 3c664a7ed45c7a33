"""Calls of the engine that it cannot take: a sentence, and no read beyond what was given."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from lightm_runtime import EngineError, engine, load
from lightm_runtime.interface import Progress, Spacing, Triple, library

from nnunetv2_lightm.deploy.bundle import write_bundle
from nnunetv2_lightm.deploy.model_folder import read_model_folder

from ..model_folders import write_model_folder
from ..prediction import write_images

IMAGE = np.random.default_rng(0).normal(100, 40, (2, 9, 17, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def model(volume_bundle):
    return load(volume_bundle)


@pytest.mark.parametrize(
    "image",
    [IMAGE[:1], IMAGE[[0, 1, 0]], IMAGE[0], IMAGE[None], IMAGE[:, 0], IMAGE[:0], np.float32(1)],
    ids=["a channel less", "one more", "no channels", "five axes", "a slice", "nothing", "a number"],
)
def test_an_image_of_another_shape_is_refused(image, model):
    for call in (lambda: model.segment(image, (1.0, 1.0, 1.0)), lambda: model.forward(image)):
        with pytest.raises(EngineError, match=r"the image is of shape \(.*\); needed: \(2, z, y, x\)"):
            call()


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_an_axis_without_a_voxel_is_refused(axis, model):
    image = np.delete(IMAGE, slice(None), axis)
    for call in (lambda: model.segment(image, (1.0, 1.0, 1.0)), lambda: model.forward(image)):
        with pytest.raises(EngineError, match="an axis would have no voxel"):
            call()


def test_a_stack_is_no_patch_of_a_2d_model(flat_bundle):
    with pytest.raises(EngineError, match="its size"):
        load(flat_bundle).forward(IMAGE[:1])


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 1.0, 1.0, 1.0), ()])
def test_another_number_of_spacings_is_refused(spacing, model):
    with pytest.raises(EngineError, match=r"the spacing is \(.*; needed: three lengths in mm, \(z, y, x\)"):
        model.segment(IMAGE, spacing)


@pytest.mark.parametrize("fold", [-1, 1, 10**9])
def test_a_fold_that_the_model_lacks_is_refused(fold, model):
    with pytest.raises(EngineError, match=f"fold {fold} is not in the model: it has 1"):
        model.forward(IMAGE[:, :8, :16], fold)


@pytest.fixture(scope="module")
def model_of_high_labels(tmp_path_factory):
    root = tmp_path_factory.mktemp("high")
    labels = {"background": 0, "whole": [255, 300], "core": [300]}
    options = {"configuration": "2d", "spacing": (1.0, 1.0), "patch_size": (16, 16), "mirroring_axes": ()}
    folder = write_model_folder(root / "model", labels=labels, regions_class_order=(255, 300), **options)
    write_images(root / "images", 1, shape=(30, 24))
    write_bundle(read_model_folder(folder), root / "a.lightm", half=False, check_images=root / "images")
    return load(root / "a.lightm")


@pytest.mark.parametrize("label_bytes, status", [(0, 5), (1, 5), (2, 0), (3, 5), (8, 5)])
def test_labels_that_do_not_fit_their_bytes_are_refused(label_bytes, status, model_of_high_labels):
    """A label of 300 written in one byte would be another label, 44."""
    image = IMAGE[:1, :1]
    labels = np.zeros((*image.shape[1:], 8), np.uint8)
    given = (image.ctypes.data, Triple(*image.shape[1:]), Spacing(1.0, 1.0, 1.0), labels.ctypes.data)
    call = library().lightm_segment
    found = call(ctypes.byref(model_of_high_labels._model), *given, label_bytes, 1, Progress(lambda *_: 0), None)
    assert found == status and labels.any() == (status == 0)
    expected = model_of_high_labels.segment(image, (1.0, 1.0, 1.0))
    assert expected.dtype == np.uint16 and 300 in expected
    if status == 0:
        assert (labels.ravel().view(np.uint16)[: expected.size].reshape(expected.shape) == expected).all()


@pytest.mark.parametrize("threads", [10**9, 2**62, 10**30, -1, None])
def test_any_number_of_threads_is_taken(threads, model):
    """No more are started than there are cores."""
    expected = model.segment(IMAGE, (1.0, 1.0, 1.0), 1)
    assert (model.segment(IMAGE, (1.0, 1.0, 1.0), threads) == expected).mean() > 0.999
    assert 1 <= engine._threads(threads) <= engine.available_threads()


@pytest.mark.parametrize("threads", [2**33, 2**62, 2**63 - 1, -(2**63)])
def test_the_c_functions_take_any_number_of_threads(threads, model, monkeypatch):
    """Whichever program calls them. An exception that leaves them ends the process."""
    monkeypatch.setattr(engine, "_threads", lambda wanted: wanted)
    patch = IMAGE[:, :8, :16]
    np.testing.assert_allclose(model.forward(patch, threads=threads), model.forward(patch, threads=1), atol=1e-3)
    assert model.segment(IMAGE, (1.0, 1.0, 1.0), threads).shape == IMAGE.shape[1:]

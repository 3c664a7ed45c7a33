"""Each step of the engine against its original alone."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
import torch
from lightm_runtime import engine
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from nnunetv2.preprocessing.normalization import default_normalization_schemes
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape, resample_data_or_seg_to_shape

THRESHOLD = 3.0


def three(values) -> ctypes.Array:
    return engine.Triple(*map(int, values))


def resample(array: np.ndarray, new_shape, spacing, new_spacing, how: engine.Resampling) -> np.ndarray:
    out = np.empty(new_shape, array.dtype)
    function = {"d": "lightm_resample", "f": "lightm_resample_float"}[array.dtype.char]
    status = getattr(engine.library(), function)(
        array.ctypes.data,
        three(array.shape),
        engine.Spacing(*spacing),
        out.ctypes.data,
        three(new_shape),
        engine.Spacing(*new_spacing),
        ctypes.byref(how),
    )
    assert status == 0
    return out


# Shapes and spacings: up, down, mixed; an axis that stays; separate z by the old and by the new spacing, by each axis;
# two coarse axes, which are not separated; a single plane.
CASES = {
    "up": ((7, 9, 11), (1.0, 1.0, 1.0), (0.5, 0.7, 0.6)),
    "down": ((12, 31, 17), (1.0, 1.0, 1.0), (2.3, 1.9, 3.1)),
    "mixed": ((9, 20, 13), (1.0, 2.0, 1.5), (1.7, 0.9, 1.5)),
    "separate z": ((6, 21, 18), (5.0, 1.0, 1.0), (2.0, 1.3, 0.8)),
    "separate z, which stays": ((6, 21, 18), (5.0, 1.0, 1.0), (5.0, 1.3, 0.8)),
    "separate z alone changes": ((6, 11, 12), (5.0, 1.0, 1.0), (2.0, 1.0, 1.0)),
    "separate y": ((15, 6, 18), (1.0, 6.0, 1.2), (0.8, 2.5, 1.5)),
    "separate x": ((15, 16, 5), (1.0, 1.0, 6.0), (1.4, 0.9, 2.0)),
    "by the new spacing": ((10, 14, 12), (1.0, 1.0, 1.0), (4.0, 0.9, 1.2)),
    "two coarse axes": ((10, 8, 24), (4.0, 4.0, 1.0), (3.0, 3.0, 1.3)),
    "flat": ((1, 30, 27), (999.0, 1.0, 1.0), (999.0, 0.8, 1.4)),
    "the same": ((5, 6, 7), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("order", "order_z"), [(3, 0), (3, 1), (3, 3), (1, 0), (1, 1), (0, 0)])
def test_resampling_is_nnunets(case, order, order_z):
    shape, spacing, new_spacing = CASES[case]
    array = np.random.default_rng(0).normal(100, 30, shape)
    new_shape = [int(size) for size in compute_new_shape(shape, spacing, new_spacing)]
    options = {"order": order, "order_z": order_z, "force_separate_z": None}
    expected = resample_data_or_seg_to_shape(array[None], new_shape, spacing, new_spacing, is_seg=False, **options)[0]
    how = engine.Resampling(order, order_z, -1, THRESHOLD)
    np.testing.assert_allclose(resample(array, new_shape, spacing, new_spacing, how), expected, rtol=1e-10)
    single = resample(array.astype(np.float32), new_shape, spacing, new_spacing, how)
    np.testing.assert_allclose(single, expected, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("force", [False, True])
def test_separate_z_can_be_forced(force):
    shape, spacing, new_spacing, new_shape = (6, 9, 8), (2.0, 1.0, 1.0), (1.1, 0.8, 1.2), (11, 11, 7)
    array = np.random.default_rng(0).normal(size=shape)
    options = {"order": 3, "order_z": 0, "force_separate_z": force}
    expected = resample_data_or_seg_to_shape(array[None], new_shape, spacing, new_spacing, is_seg=False, **options)[0]
    found = resample(array, new_shape, spacing, new_spacing, engine.Resampling(3, 0, int(force), THRESHOLD))
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("threshold", [1.5, 2.5])
def test_the_threshold_decides_what_is_separate(threshold):
    """Plans may name another one than nnU-Net's 3."""
    shape, spacing, new_spacing, new_shape = (6, 9, 8), (2.0, 1.0, 1.0), (1.1, 0.8, 1.2), (11, 11, 7)
    array = np.random.default_rng(0).normal(size=shape)
    options = {"order": 3, "order_z": 0, "force_separate_z": None, "separate_z_anisotropy_threshold": threshold}
    expected = resample_data_or_seg_to_shape(array[None], new_shape, spacing, new_spacing, is_seg=False, **options)[0]
    found = resample(array, new_shape, spacing, new_spacing, engine.Resampling(3, 0, -1, threshold))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_sharp_edges_do_not_overshoot():
    """The cubic spline would; skimage clips to the range of its input."""
    array = np.zeros((8, 16, 16))
    array[:, 4:12, 5:9] = 1
    found = resample(array, (8, 37, 41), (1.0, 1.0, 1.0), (1.0, 0.4, 0.4), engine.Resampling(3, 0, -1, THRESHOLD))
    assert found.min() == 0 and found.max() == 1


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("content", ["blob", "hollow", "nothing", "everything"])
def test_crop_and_mask_are_nnunets(channels, content):
    image = np.zeros((channels, 9, 10, 11), np.float32)
    if content == "blob":
        image[0, 2:5, 3:8, 1:6] = 1
        image[-1, 4:6, 7:9, 4:7] = -2
    elif content == "hollow":  # filled inside; a hole that is open to one side stays
        image[0, 1:8, 1:8, 1:9] = 3
        image[0, 3:5, 3:5, 3:5] = 0
        image[0, 1:3, 6, 6] = 0
    elif content == "everything":
        image += 1
    cropped, mask, bounds = crop_to_nonzero(image.copy())
    found = np.zeros(6, np.int64)
    engine.library().lightm_crop(image.ctypes.data, channels, three(image.shape[1:]), found.ctypes.data)
    assert found.reshape(3, 2).tolist() == [[int(a), int(b)] for a, b in bounds]
    cropped = np.ascontiguousarray(cropped)
    found_mask = np.empty(cropped.shape[1:], np.uint8)
    assert (
        engine.library().lightm_mask(cropped.ctypes.data, channels, three(cropped.shape[1:]), found_mask.ctypes.data)
        == 0
    )
    np.testing.assert_array_equal(found_mask, mask[0] >= 0)


@pytest.mark.parametrize("use_mask", [False, True])
@pytest.mark.parametrize("scheme", engine.SCHEMES)
def test_normalisation_is_nnunets(scheme, use_mask):
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 255, (7, 8, 9)).astype(np.float32)
    image[:2] = 0
    statistics = {"mean": 90.0, "std": 40.0, "percentile_00_5": 12.0, "percentile_99_5": 199.0}
    segmentation = np.where(image != 0, 0, -1)
    original = getattr(default_normalization_schemes, scheme)(use_mask, statistics)
    expected = original.run(image.copy(), segmentation)
    described = {"scheme": scheme, "use_mask": use_mask, "statistics": statistics}
    mask = (image != 0).astype(np.uint8)
    found = image.copy()
    channel = engine._channel(described)
    assert (
        engine.library().lightm_normalise(found.ctypes.data, found.size, ctypes.byref(channel), mask.ctypes.data) == 0
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [-1, 256])
def test_rgb_out_of_range_is_refused(value):
    image = np.full(8, value, np.float32)
    channel = engine.Channel(engine.SCHEMES.index("RGBTo01Normalization"), 0)
    assert engine.STATUSES[
        engine.library().lightm_normalise(image.ctypes.data, 8, ctypes.byref(channel), None)
    ].startswith("the model was trained on RGB")


def test_constant_image_is_normalised_to_zero():
    image = np.full(8, 7, np.float32)
    channel = engine.Channel(engine.SCHEMES.index("ZScoreNormalization"), 0)
    assert engine.library().lightm_normalise(image.ctypes.data, 8, ctypes.byref(channel), None) == 0
    assert (image == 0).all()


@pytest.mark.parametrize(
    "patch", [(16, 16, 16), (40, 56, 40), (5, 33, 64), (128, 128, 128), (1, 7, 9), (512, 512), (24, 17)]
)
def test_window_weights_are_nnunets_bit_by_bit(patch):
    expected = compute_gaussian(tuple(patch), value_scaling_factor=10, device=torch.device("cpu")).float().numpy()
    found = np.empty(patch, np.float32)
    engine.library().lightm_gaussian(three((1, *patch)[-3:]), len(patch), 0.125, found.ctypes.data)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("step", [0.5, 0.3, 1.0])
def test_windows_are_nnunets(step):
    for patch in (1, 7, 16, 33):
        for size in range(patch, 5 * patch + 3):
            (expected,) = compute_steps_for_sliding_window((size,), (patch,), step)
            found = np.zeros(len(expected) + 1, np.int64)
            count = engine.library().lightm_window_starts(size, patch, step, None)
            assert count == len(expected), (size, patch)
            engine.library().lightm_window_starts(size, patch, step, found.ctypes.data)
            assert found[:count].tolist() == expected, (size, patch)


@pytest.mark.parametrize("regions", [None, (3, 1, 7)])
@pytest.mark.parametrize("case", CASES)
def test_labels_of_resampled_logits_are_nnunets(case, regions):
    """Plane by plane as all at once."""
    shape, spacing, new_spacing = CASES[case]
    logits = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    new_shape = [int(size) for size in compute_new_shape(shape, spacing, new_spacing)]
    options = {"order": 1, "order_z": 0, "force_separate_z": None}
    resampled = resample_data_or_seg_to_shape(
        logits.astype(float), new_shape, spacing, new_spacing, is_seg=False, **options
    )
    expected = resampled.argmax(0)
    if regions:
        expected = np.zeros(new_shape, int)
        for logit, label in zip(resampled, regions):
            expected[logit > 0] = label
    found = np.empty(new_shape, np.uint16)
    order = (ctypes.c_int64 * 3)(*regions) if regions else None
    status = engine.library().lightm_labels(
        logits.ctypes.data,
        3,
        three(shape),
        engine.Spacing(*spacing),
        three(new_shape),
        engine.Spacing(*new_spacing),
        ctypes.byref(engine.Resampling(1, 0, -1, THRESHOLD)),
        order,
        found.ctypes.data,
    )
    assert status == 0
    # float32 compared with float64: ties at most.
    assert (found != expected).mean() < 1e-3


def test_half_precision_is_numpys():
    every = np.arange(2**16, dtype=np.uint16)
    found = np.empty(2**16, np.float32)
    engine.library().lightm_half_to_float(every.ctypes.data, found.ctypes.data, len(every))
    np.testing.assert_array_equal(found, every.view(np.float16).astype(np.float32))

"""HD95 and NSD: by hand, against MONAI's own function, with empty masks, and without MONAI."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from monai.metrics import compute_surface_dice

from nnunetv2_lightm.evaluation import surface_scores
from nnunetv2_lightm.evaluation.surface_scores import score_surfaces, surface_dice

# MONAI warns of an argument that it passes to itself.
pytestmark = pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")

BOX = {"box": (1,)}


def box(start, size, shape):
    array = np.zeros(shape, np.float32)
    array[tuple(slice(a, a + n) for a, n in zip(start, size))] = 1
    return array


@pytest.mark.parametrize(
    ("shift", "spacing", "distance"),
    [
        ((0, 0, 0), (3.0, 0.7, 0.5), 0.0),
        ((1, 0, 0), (3.0, 0.7, 0.5), 3.0),
        ((0, 2, 0), (3.0, 0.7, 0.5), 1.4),
        ((0, 0, 3), (3.0, 0.7, 0.5), 1.5),
        ((0, 0, 3), (1.0, 1.0, 2.0), 6.0),
    ],
)
def test_hd95_of_a_shifted_cube_is_the_shift(shift, spacing, distance):
    # A face, more than 5 % of the surface, is as far from the other cube's surface as the shift.
    reference = box((2, 3, 3), (5, 5, 5), (12, 14, 14))
    prediction = box(np.add((2, 3, 3), shift), (5, 5, 5), (12, 14, 14))
    scores = score_surfaces(prediction, reference, BOX, spacing_mm=spacing, tolerance_mm=0)
    assert scores[0, 0] == pytest.approx(distance)


def test_hd95_is_the_percentile_of_the_worse_direction():
    # 1 x 40 pixels and the first 36 of them: the last four are 1 to 4 pixels from these, none of these is off.
    prediction, reference = box((0, 0, 0), (1, 1, 40), (1, 1, 40)), box((0, 0, 0), (1, 1, 36), (1, 1, 40))
    expected = np.percentile([0] * 36 + [1, 2, 3, 4], 95)
    for pair in ((prediction, reference), (reference, prediction)):
        scores = score_surfaces(*pair, BOX, spacing_mm=(999, 1, 1), tolerance_mm=0)
        assert scores[0, 0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("tolerance", "nsd"),
    [
        # The contour of a 7 x 7 square has 4 x 6 whole elements and 4 cut corners of half a diagonal each. Shifted by 3
        # along x, of the upper and of the lower side four whole elements and a corner stay on the other's contour.
        (0, (8 + np.sqrt(2)) / (24 + 2 * np.sqrt(2))),
        # 3 away are the outer side (six and two corners) and, of the side within the other square, the middle two.
        (2.999, 1 - (8 + np.sqrt(2)) / (24 + 2 * np.sqrt(2))),
        (3, 1.0),
    ],
    ids=["touching", "just-below-the-shift", "at-the-shift"],
)
def test_nsd_of_a_shifted_square(tolerance, nsd):
    reference, prediction = box((0, 5, 3), (1, 7, 7), (1, 20, 20)), box((0, 5, 6), (1, 7, 7), (1, 20, 20))
    scores = score_surfaces(prediction, reference, BOX, spacing_mm=(999, 1, 1), tolerance_mm=tolerance)
    assert scores[1, 0] == pytest.approx(nsd)


def test_tolerance_holds_in_spite_of_rounding():
    # 3 x 0.1 > 0.3 in binary numbers
    reference, prediction = box((0, 5, 3), (1, 7, 7), (1, 20, 20)), box((0, 5, 6), (1, 7, 7), (1, 20, 20))
    scores = score_surfaces(prediction, reference, BOX, spacing_mm=(1, 0.1, 0.1), tolerance_mm=0.3)
    assert scores[1, 0] == 1


@pytest.mark.parametrize("slab_voxels", [1, 700, surface_scores._SLAB_VOXELS])
@pytest.mark.parametrize("shape", [(9, 17, 13), (21, 16)])
def test_nsd_is_monais(monkeypatch, shape, slab_voxels):
    monkeypatch.setattr(surface_scores, "_SLAB_VOXELS", slab_voxels)
    masks = np.random.default_rng(0).random((2, *shape)) < 0.2
    spacing = (3.0, 0.7, 0.9)[-len(shape) :]
    for tolerance in (0.0, 0.8, 3.0):
        theirs = compute_surface_dice(
            *torch.from_numpy(masks)[:, None, None],
            [tolerance],
            include_background=True,
            use_subvoxels=True,
            spacing=spacing,
        )
        assert surface_dice(masks, spacing, tolerance) == pytest.approx(theirs.item(), rel=1e-5)


@pytest.mark.parametrize("shape", [(6, 8, 10), (1, 8, 10)])
def test_empty_masks(shape):
    full, empty = box((0, 2, 2), (1, 3, 3), shape), np.zeros(shape, np.float32)
    extent = np.multiply(shape, (4, 2, 1))[-2 if shape[0] == 1 else 0 :]
    for pair in ((full, empty), (empty, full)):
        scores = score_surfaces(*pair, BOX, spacing_mm=(4, 2, 1), tolerance_mm=1)
        np.testing.assert_allclose(scores[:, 0], [np.sqrt((extent**2).sum()), 0])
    assert np.isnan(score_surfaces(empty, empty, BOX, spacing_mm=(4, 2, 1), tolerance_mm=1)).all()


def test_ignored_voxels_belong_to_no_class():
    reference = box((1, 1, 1), (3, 4, 4), (6, 8, 10))
    prediction = reference.copy()
    reference[4:] = 2
    prediction[4:] = 1
    scores = score_surfaces(prediction, reference, BOX, ignored=2, spacing_mm=(1, 1, 1), tolerance_mm=0)
    np.testing.assert_array_equal(scores[:, 0], [0, 1])


def test_regions_and_classes():
    reference = np.zeros((6, 8, 10), np.float32)
    reference[1:5, 1:5, 1:5], reference[1:5, 1:5, 5:8] = 1, 2
    prediction = np.where(reference > 0, 3 - reference, 0)
    classes = {"whole": (1, 2), "first": (1,)}
    scores = score_surfaces(prediction, reference, classes, spacing_mm=(1, 1, 1), tolerance_mm=0)
    np.testing.assert_array_equal(scores[:, 0], [0, 1])
    assert scores[0, 1] > 0


def test_missing_monai_is_named_with_the_command(monkeypatch):
    for name in ("monai", "monai.metrics"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r'HD95, NSD\) needs monai, which is not installed: .*pip install "monai>='):
        surface_scores.require_monai()

"""The demo's figures show what they should: colours, slices, aspect, curves."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from matplotlib.colors import to_rgb
from PIL import Image

from nnunetv2_lightm.benchmark.report.figures import COLORS
from nnunetv2_lightm.commands.demo.figures import OverlayCase, load_overlay_case, overlay_figure, training_curve
from nnunetv2_lightm.evaluation.scores import EvaluationError

LABELS = {"background": 0, "liver": 1, "tumor": 2}


def pixels(png):
    return np.asarray(Image.open(png).convert("RGB")).astype(float) / 255


def has_color(picture, color):
    """Pixels of a colour, as a mask: contours and legend are drawn in it unmixed."""
    return np.abs(picture - to_rgb(color)).max(axis=-1) < 0.02


def make_case(spacing_mm=(1.0, 1.0, 1.0)):
    shape = (6, 32, 40)
    image = np.random.default_rng(0).normal(0, 1, shape)
    reference = np.zeros(shape, np.uint8)
    reference[3, 8:24, 8:24] = 1
    reference[3, 12:18, 12:18] = 2
    prediction = np.where(reference == 1, 1, 0)
    return OverlayCase("case_0", image, reference, prediction, spacing_mm)


def test_each_class_is_drawn_where_it_is(tmp_path):
    overlay_figure([make_case()], tmp_path / "overlay.png", labels=LABELS)
    picture = pixels(tmp_path / "overlay.png")
    height, width, _ = picture.shape
    assert width == 1350
    panels = picture[: int(0.85 * height)]
    truth, prediction = panels[:, width // 3 : 2 * width // 3], panels[:, 2 * width // 3 :]
    assert has_color(truth, COLORS[0]).sum() > 200
    assert has_color(truth, COLORS[1]).sum() > 100
    assert has_color(prediction, COLORS[0]).sum() > 200
    assert has_color(prediction, COLORS[1]).sum() == 0
    assert not any(has_color(panels[:, : width // 3], color).any() for color in COLORS[:2])
    legend = picture[int(0.85 * height) :]
    assert all(has_color(legend, color).sum() > 50 for color in COLORS[:2])
    assert panels[:, : width // 3].std() > 0.1


def test_thick_rows_are_drawn_taller(tmp_path):
    heights = {}
    for spacing in (1.0, 2.0):
        overlay_figure([make_case(spacing_mm=(1.0, spacing, 1.0))], tmp_path / "overlay.png", labels=LABELS)
        heights[spacing] = pixels(tmp_path / "overlay.png").shape[0]
    # one panel is 450 x 360 pixels at equal spacing
    assert heights[2.0] - heights[1.0] == pytest.approx(360, abs=5)


def test_slice_shows_the_small_class_too(tmp_path):
    """The largest liver slice has no tumor; the chosen one has both."""
    case = make_case()
    case.reference[1, 4:28, 4:28] = 1
    overlay_figure([case], tmp_path / "overlay.png", labels=LABELS)
    picture = pixels(tmp_path / "overlay.png")
    assert has_color(picture[: int(0.85 * len(picture))], COLORS[1]).sum() > 100


def test_one_row_a_case_and_images_as_well(tmp_path):
    volume = make_case()
    image = OverlayCase("image", volume.image[3], volume.reference[3], volume.prediction[3])
    overlay_figure([volume], tmp_path / "one.png", labels=LABELS)
    overlay_figure([volume, image, volume], tmp_path / "three.png", labels=LABELS)
    one, three = (pixels(tmp_path / name) for name in ("one.png", "three.png"))
    assert len(three) > 2.5 * len(one)
    assert has_color(three, COLORS[0]).sum() > 2.5 * has_color(one, COLORS[0]).sum()


def test_empty_and_constant_cases_are_drawn(tmp_path):
    zeros = np.zeros((4, 16, 16))
    overlay_figure([OverlayCase("empty", zeros, zeros, zeros)], tmp_path / "overlay.png", labels=LABELS)
    assert has_color(pixels(tmp_path / "overlay.png"), COLORS[0]).any()


def test_bad_cases_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one case"):
        overlay_figure([], tmp_path / "overlay.png", labels=LABELS)
    case = make_case()
    with pytest.raises(ValueError, match="case_0"):
        overlay_figure(
            [OverlayCase("case_0", case.image, case.reference[:3], case.prediction)], tmp_path, labels=LABELS
        )


def write_volume(path, array, direction, spacing):
    volume = sitk.GetImageFromArray(array)
    volume.SetDirection(direction)
    volume.SetSpacing(spacing)
    sitk.WriteImage(volume, str(path))


def test_volumes_are_turned_to_axial_slices(tmp_path):
    # stored with x to the patient's right and y to the front, as NIfTI's RAS files are
    array = np.zeros((3, 4, 5), np.int16)
    array[1, 0, 0] = 1
    files = [tmp_path / f"{name}.nii.gz" for name in ("image", "reference", "prediction")]
    for file in files:
        write_volume(file, array, (-1, 0, 0, 0, -1, 0, 0, 0, 1), (1.0, 2.0, 3.0))
    case = load_overlay_case("a", *files, labels=LABELS, file_ending=".nii.gz")
    assert case.spacing_mm == pytest.approx((3, 2, 1))
    for turned in (case.image, case.reference, case.prediction):
        np.testing.assert_array_equal(np.argwhere(turned), [[1, 3, 4]])


def test_file_on_another_grid_is_named(tmp_path):
    files = [tmp_path / f"{name}.nii.gz" for name in ("image", "reference", "prediction")]
    for file, size in zip(files, (4, 4, 5), strict=True):
        write_volume(file, np.zeros((3, 4, size), np.uint8), np.eye(3).ravel(), (1.0, 1.0, 1.0))
    with pytest.raises(EvaluationError, match=r"prediction\.nii\.gz"):
        load_overlay_case("a", *files, labels=LABELS, file_ending=".nii.gz")


def test_training_curve_shows_losses_and_dice(tmp_path, monkeypatch):
    monkeypatch.setattr("matplotlib.axes.Axes.legend", lambda *_, **__: None)  # it has the curves' colours, anywhere
    lines = []
    for epoch in range(12):
        values = {
            "Epoch": epoch,
            "train_loss": 1 - 0.1 * epoch,
            "val_loss": 1.1 - 0.1 * epoch,
            "Pseudo dice": f"[np.float32({epoch / 12:.4f}), np.float32({epoch / 24:.4f})]",
            "Epoch time:": f"{20 + epoch} s",
        }
        lines += [f"2026-01-02 03:04:05.678901: {key} {value} " for key, value in values.items()]
    (tmp_path / "training_log_2026_1_2_03_04_05.txt").write_text("\n".join(lines))
    training_curve(tmp_path, tmp_path / "curve.png")
    picture = pixels(tmp_path / "curve.png")
    assert picture.shape[:2] == (570, 1350)
    left, right = np.split(picture, 2, axis=1)
    assert has_color(left, "#0072B2").sum() > 300 and has_color(left, "#D55E00").sum() > 300
    assert has_color(right, COLORS[0]).sum() > 300 and has_color(right, COLORS[1]).sum() > 300
    # both Dice curves rise: further right is further up
    rows, columns = np.nonzero(has_color(right[140:480, 100:], COLORS[0]))
    assert np.corrcoef(rows, columns)[0, 1] < -0.9

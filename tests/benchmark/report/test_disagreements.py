"""Overlays: which cases, and what is marked where."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from nnunetv2_lightm.benchmark.report.case_slices import CaseSlice
from nnunetv2_lightm.benchmark.report.contenders import find_contenders
from nnunetv2_lightm.benchmark.report.disagreements import CONFUSED, MISSED, SURPLUS, disagreement_figure
from nnunetv2_lightm.benchmark.report.overlays import choose_cases, load_case

from ..make_results import make_results, with_images

LABELS = {"background": 0, "left": 1, "right": 2, "ignore": 3}


def make_slice(prediction_changes):
    reference = np.zeros((30, 30), np.uint8)
    reference[5:25, 5:15] = 1
    reference[5:25, 15:25] = 2
    reference[:3] = 3
    prediction = np.where(reference == 3, 0, reference)
    for place, value in prediction_changes:
        prediction[place] = value
    return CaseSlice("case", np.ones(reference.shape), reference, prediction, (1.0, 1.0), 0.9)


def amounts(png):
    """Pixels of each disagreement's colour, above the legend; it is drawn on a constant image."""
    picture = np.asarray(Image.open(png).convert("RGB")).astype(float) / 255
    picture = picture[:-130]
    gray = picture[200, 40]
    return {
        color: int((np.abs(picture - (0.9 * np.array(to_rgb(color)) + 0.1 * gray)).max(axis=-1) < 0.03).sum())
        for color in (MISSED, SURPLUS, CONFUSED)
    }


@pytest.mark.parametrize(
    ("changes", "marked"),
    [
        ([], set()),
        ([(np.s_[8:20, 8:14], 0)], {MISSED}),
        ([(np.s_[26:29, 4:20], 1)], {SURPLUS}),
        ([(np.s_[8:20, 8:14], 2)], {CONFUSED}),
        ([(np.s_[:2, :], 1)], set()),  # where the ground truth says to ignore
    ],
)
def test_disagreements_are_marked_by_their_kind(tmp_path, changes, marked):
    disagreement_figure({"method": make_slice(changes)}, tmp_path / "overlay.png", labels=LABELS)
    pixels = amounts(tmp_path / "overlay.png")
    assert {color for color, count in pixels.items() if count > 200} == marked


def test_methods_are_drawn_beside_each_other(tmp_path):
    wrong = make_slice([(np.s_[8:20, 8:14], 0)])
    disagreement_figure({"one": wrong}, tmp_path / "one.png", labels=LABELS)
    disagreement_figure({f"m{i}": wrong for i in range(4)}, tmp_path / "four.png", labels=LABELS)
    one, four = (amounts(tmp_path / f"{name}.png")[MISSED] for name in ("one", "four"))
    assert four == pytest.approx(4 * one, rel=0.1)


def test_nothing_to_draw_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        disagreement_figure({}, tmp_path / "overlay.png", labels=LABELS)


def test_worst_median_and_best_case_are_chosen_over_all_methods():
    contenders = find_contenders(make_results())
    means = {
        case: np.mean([contender.evaluation.scores["DSC"][i] for contender in contenders])
        for i, case in enumerate(contenders[0].evaluation.cases)
    }
    chosen = {pictured.rank: pictured.case for pictured in choose_cases(contenders)}
    order = sorted(means, key=means.get)
    assert chosen == {"worst": order[0], "median": order[2], "best": order[-1]}


def test_a_method_that_rightly_finds_nothing_is_faultless_in_the_choice():
    """In a case without a class, two of three methods find none: it is not the worst of all."""
    results = make_results()
    for run, dsc in zip(results.runs, (None, None, 0.0), strict=True):
        for scores in run.evaluation["cases"]["case_0"].values():
            scores.update(DSC=dsc, IoU=dsc)
        for scores in run.evaluation["cases"]["case_1"].values():
            scores.update(DSC=0.3, IoU=0.2)
    worst = choose_cases(find_contenders(results))[0]
    assert (worst.case, worst.rank, worst.mean_dsc) == ("case_1", "worst", pytest.approx(0.3))


@pytest.mark.parametrize("count", [1, 2])
def test_few_cases_are_shown_once(count):
    results = make_results(("nnUNetTrainer",))
    cases = results.runs[0].evaluation["cases"]
    for name in list(cases)[count:]:
        del cases[name]
    assert [pictured.case for pictured in choose_cases(find_contenders(results))] == sorted(
        cases, key=lambda name: cases[name]["left_lung"]["DSC"] + cases[name]["right_lung"]["DSC"]
    )


def test_no_case_is_chosen_without_scores():
    assert choose_cases([]) == []


def test_what_is_missing_is_named(tmp_path):
    results = with_images(make_results(), tmp_path)
    (tmp_path / "predictions_1" / "case_0.png").unlink()
    (tmp_path / "predictions_2").rename(tmp_path / "elsewhere")
    loaded = load_case(results, find_contenders(results), "case_0")
    assert list(loaded.slices) == ["nnUNetTrainer"]
    assert loaded.missing["LightMUNet"] == f"the file {tmp_path / 'predictions_1' / 'case_0.png'}"
    assert loaded.missing["SegResNet"] == f"the folder {tmp_path / 'predictions_2'} of predictions"

"""The axis of the scores in Figure 1."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from nnunetv2_lightm.benchmark.report.plots import _spread_scores


def axes_of(scores):
    axes = Figure().subplots()
    axes.scatter(range(len(scores)), scores)
    _spread_scores(axes, scores)
    return axes


@pytest.mark.parametrize("scores", [[85.9, 85.1], [95.0], [float("nan")], []], ids=str)
def test_scores_that_lie_together_have_an_ordinary_axis(scores):
    assert axes_of(scores).get_yscale() == "linear"


@pytest.mark.parametrize("scores", [[95.4, 95.3, 85.1, 0.0], [100.0, 90.0], [float("nan"), 99.0, 40.0]], ids=str)
def test_a_method_that_fails_leaves_the_others_apart(scores):
    axes = axes_of(scores)
    axes.figure.canvas.draw()
    known = sorted(score for score in scores if score == score)
    heights = [float(axes.transAxes.inverted().transform(axes.transData.transform((0, y)))[1]) for y in known]
    assert heights == sorted(heights) and heights[0] > 0 and heights[-1] < 1
    assert len(axes.get_yticks()) >= 2
    ordinary = (known[-1] - known[-2]) / (known[-1] - known[0])
    assert heights[-1] - heights[-2] >= 0.9 * ordinary * (heights[-1] - heights[0])

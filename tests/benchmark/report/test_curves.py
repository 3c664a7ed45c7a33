"""Training curves and time-to-accuracy, against hand-computed seconds."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from nnunetv2_lightm.benchmark.report.contenders import find_contenders
from nnunetv2_lightm.benchmark.report.curves import LEVELS, foreground_mean, reached_levels, training_curves
from nnunetv2_lightm.benchmark.report.sections import time_to_accuracy_table
from nnunetv2_lightm.runs.training_log import EpochRecord

from ..make_results import make_results, make_run


def run_with(dice, trainer="nnUNetTrainer", **fields):
    epochs = tuple(EpochRecord(i, -d, -d, (d,), 7.0 + i) for i, d in enumerate(dice))
    return replace(make_run(trainer, 0.9), epochs=epochs, **fields)


def curves_of(*runs, **changes):
    results = make_results(runs=runs, **changes)
    return training_curves(results, find_contenders(results))


def test_seconds_are_iterations_times_calibrated_seconds():
    curve = curves_of(run_with([0.2, 0.6, 0.8]))["nnUNetTrainer"]
    assert curve.calibrated
    np.testing.assert_allclose(curve.seconds, np.array([1, 2, 3]) * (50 * 0.5 + 10 * 0.2))
    np.testing.assert_allclose(curve.iterations, [50, 100, 150])


def test_the_overhead_of_an_epoch_counts():
    calibration = {"nnUNetTrainer": {"train_seconds": 0.5, "validation_seconds": 0.2, "epoch_seconds": 3.0}}
    curve = curves_of(run_with([0.2, 0.6]), calibration=calibration)["nnUNetTrainer"]
    np.testing.assert_allclose(curve.seconds, [30, 60])


def test_recorded_seconds_stand_in_where_nothing_is_calibrated_and_the_table_says_so():
    curves = curves_of(run_with([0.2, 0.6, 0.8]), calibration={})
    np.testing.assert_allclose(curves["nnUNetTrainer"].seconds, [7, 15, 24])
    assert "recorded seconds" in time_to_accuracy_table(curves)


def test_mean_band_and_first_time_that_a_value_is_reached():
    curve = curves_of(run_with([0.2, 0.6, 0.5, 0.8]), run_with([0.4, 0.8, 0.5, 0.9], seed=1))["nnUNetTrainer"]
    np.testing.assert_allclose(curve.pseudo_dice, [0.3, 0.7, 0.5, 0.85])
    np.testing.assert_allclose(curve.lowest, [0.2, 0.6, 0.5, 0.8])
    np.testing.assert_allclose(curve.highest, [0.4, 0.8, 0.5, 0.9])
    assert curve.seconds_to_reach(0.6) == pytest.approx(54)
    assert curve.seconds_to_reach(0.9) is None


def test_unfinished_runs_are_shown_only_where_no_other_is():
    done, torn = run_with([0.2, 0.6]), run_with([0.9], seed=1, complete=False)
    assert curves_of(done, torn)["nnUNetTrainer"].num_runs == 1
    np.testing.assert_allclose(curves_of(torn)["nnUNetTrainer"].pseudo_dice, [0.9])
    assert curves_of(run_with([], complete=False)) == {}


def test_values_are_those_that_one_method_reaches():
    curves = curves_of(run_with([0.3, 0.72]), run_with([0.1, 0.31], "nnUNetTrainerUNETR"))
    assert reached_levels(curves) == [0.1, 0.3, 0.5, 0.7]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in time_to_accuracy_table(curves).splitlines()]
    assert rows[0] == ["method", "0.1", "0.3", "0.5", "0.7", "highest"]
    assert rows[2] == ["nnUNetTrainer", "27 s", "27 s", "54 s", "54 s", "0.720"]
    # UNETR has no calibration here: 7 and 7 + 8 recorded seconds
    assert rows[3] == ["UNETR (recorded seconds)", "7 s", "15 s", "not reached", "not reached", "0.310"]
    assert len(reached_levels(curves_of(run_with([1.0])))) < len(LEVELS)


def test_nothing_reached_is_said():
    assert "No method reaches" in time_to_accuracy_table(curves_of(run_with([0.01, 0.02])))


def test_class_without_voxels_is_left_out():
    assert foreground_mean(EpochRecord(0, 0, 0, (0.4, math.nan, 0.6), 1)) == pytest.approx(0.5)
    assert math.isnan(foreground_mean(EpochRecord(0, 0, 0, (math.nan,), 1)))

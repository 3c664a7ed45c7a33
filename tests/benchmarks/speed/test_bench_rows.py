"""Goals, rows, options and the description of the machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.speed.harness import machine
from benchmarks.speed.harness.goals import GOALS, Goal
from benchmarks.speed.harness.results import RESULTS, SHARE, SPEED, Result, Row, argument_parser, parse
from benchmarks.speed.harness.timing import QUICK
from nnunetv2_lightm.measure.timing import Spread


def spread(median):
    return Spread(median, median - 1, median + 1, 5)


def row(name="forward_3d_64", **given):
    return Row(name, "work", "ours", "rival", **given)


def test_goals_are_those_of_the_contract():
    assert {name: str(goal) for name, goal in GOALS.items()} == {
        "scan_forward_reference_loop": "≥ 300x",
        "scan_forward_mamba_py": "≥ 60x",
        "scan_forward_exps": "≤ 1.5x",
        "scan_training_mamba_py": "≥ 25x",
        "forward_3d_64": "≥ 3x (aim: 4.5x)",
        "forward_3d_128": "≥ 3x (aim: 4.5x)",
        "forward_2d_512": "≥ 2x",
        "training_3d_64": "≥ 2x",
        "training_2d_512": "≥ 1.2x",
        "growth_3d": "≤ 8.5x",
        **dict.fromkeys(("recipe_3d_64", "recipe_2d_512", "recipe_3d_40", "recipe_2d_128"), "≤ 0.05x"),
        "memory_forward_3d_64": "≤ 0.4x",
        "memory_forward_3d_128": "≤ 0.4x",
        "memory_training_3d_64": "≤ 1x",
        "memory_training_2d_512": "≤ 1x",
    }


def test_a_goal_is_met_at_its_bound():
    assert Goal(least=3).met_by(3.0)
    assert not Goal(least=3).met_by(2.999)
    assert Goal(most=0.4).met_by(0.4)
    assert not Goal(most=0.4).met_by(0.401)


@pytest.mark.parametrize("bounds", [{}, {"least": 1, "most": 2}])
def test_a_goal_has_one_bound(bounds):
    with pytest.raises(ValueError, match="one bound"):
        Goal(**bounds)


def test_ratio_of_times_is_how_much_faster_ours_is():
    measured = row(kind=SPEED).measured(spread(2.0), spread(8.0))
    assert (measured.ratio, measured.met) == (4.0, True)
    assert row(kind=SPEED).measured(spread(8.0), spread(2.0)).met is False


def test_ratio_of_shares_is_ours_over_theirs():
    measured = row("memory_forward_3d_64", unit="MiB", kind=SHARE).measured(spread(30.0), spread(100.0))
    assert (measured.ratio, measured.met) == (0.3, True)


def test_without_a_goal_nothing_is_met_or_missed():
    measured = row("bf16").measured(spread(1.0), spread(2.0))
    assert (measured.ratio, measured.met) == (2.0, None)


def test_what_is_not_measured_has_a_reason_and_no_verdict():
    missing = row().measured(spread(1.0), None, "not installed")
    assert (missing.ratio, missing.met, missing.not_measured) == (None, None, "not installed")
    # The first reason stays.
    assert row(not_measured="check failed").measured(None, None, "not installed").not_measured == "check failed"
    assert row().measured(spread(1.0), spread(2.0), "not installed").not_measured is None


def test_rows_survive_the_result_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.speed.harness.results.machine", lambda *packages: dict.fromkeys(packages, "1.0"))
    result = Result("scan", QUICK, threads=2, facts={"peaks": {}})
    rows = [row().measured(spread(2.0), spread(8.0)), row("other", not_measured="no compiler")]
    for one in rows:
        result.add(one)
    data = json.loads(result.write(tmp_path).read_text(encoding="utf-8"))
    assert [Row.from_json(one) for one in data["rows"]] == rows
    assert (data["quick"], data["threads"], data["machine"]["mambapy"]) == (True, 2, "1.0")
    assert (data["rows"][0]["ratio"], data["rows"][0]["goal"], data["rows"][0]["met"]) == (
        4.0,
        "≥ 3x (aim: 4.5x)",
        True,
    )
    printed = capsys.readouterr().out
    assert "forward_3d_64: 4x, goal ≥ 3x (aim: 4.5x): met" in printed
    assert "other: not measured: no compiler" in printed


def test_a_quick_run_does_not_touch_the_results(capsys):
    with pytest.raises(SystemExit):
        parse(argument_parser(""), ["--quick"])
    assert "--out" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse(argument_parser(""), ["--quick", "--out", str(RESULTS / ".." / "results")])


def test_effort_follows_the_options(tmp_path):
    arguments, effort = parse(argument_parser(""), ["--quick", "--out", str(tmp_path)])
    assert (arguments.out, effort) == (tmp_path, QUICK)
    assert not parse(argument_parser(""), [])[1].quick


def test_machine_is_described(monkeypatch):
    found = machine.machine("no-such-package")
    assert {"processor", "memory", "system", "python", "nnunetv2", "nnunetv2-lightm", "torch", "numpy"} <= set(found)
    assert found["no-such-package"] == "not installed"
    assert float(found["memory"].removesuffix(" GiB")) > 0.1
    monkeypatch.setattr(machine, "ROOT", Path("/"))
    assert machine.commit() == "unknown"


def test_changed_files_are_told_with_the_commit(monkeypatch):
    answers = {"rev-parse": "abc1234", "status": " M setup.py"}
    monkeypatch.setattr(machine, "_git", lambda command, *_: answers[command])
    assert machine.commit() == "abc1234, with uncommitted changes"
    answers["status"] = ""
    assert machine.commit() == "abc1234"


def test_environment_that_changes_speed_is_told():
    given = {"MALLOC_TOP_PAD_": "1", "NNUNETV2_LIGHTM_DATA": "folder"}
    assert machine.speed_variables(given) == {"MALLOC_TOP_PAD_": "1"}


def test_what_libraries_set_is_not_taken_for_the_users():
    """scikit-learn, which nnU-Net imports, sets KMP_INIT_AT_FORK."""
    script = (
        "from benchmarks.speed import recipe; from benchmarks.speed.harness import machine; import sklearn, os; "
        "print('KMP_INIT_AT_FORK' in os.environ, 'KMP_INIT_AT_FORK' in machine.speed_variables())"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KMP_")}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, cwd=machine.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]

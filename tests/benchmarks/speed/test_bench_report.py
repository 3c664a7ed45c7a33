"""RESULTS.md and the plot."""

from __future__ import annotations

import json

import pytest

from benchmarks.speed import report
from benchmarks.speed.harness.goals import GOALS
from benchmarks.speed.harness.plot import draw
from benchmarks.speed.harness.report_text import goals_table, number, records_table, results_markdown, spread_text
from benchmarks.speed.harness.results import SHARE, SPEED, Row
from nnunetv2_lightm.measure.timing import Spread


def measured(name, ours, theirs, kind=SPEED, unit="s"):
    row = Row(name, f"work of {name}", "our package, backend x", "rival 1.2", unit=unit, kind=kind, threads=2)
    return row.measured(Spread(ours, ours, ours, 3), Spread(theirs, theirs, theirs, 3))


def group(name="networks", rows=(), **given):
    facts = {"date": "2026-01-31", "seconds": 7, "machine": {"processor": "P", "commit": "abc"}, "threads": 2}
    facts |= {"quick": False, "environment": {}, "tables": {}}
    return {"group": name, **facts, "rows": [row.to_json() for row in rows], **given}


def lines(markdown, word):
    return [line for line in markdown.splitlines() if word in line]


def test_every_goal_has_its_line_measured_or_not():
    rows = [
        measured("forward_3d_64", 0.25, 1.0),
        measured("memory_forward_3d_64", 50.0, 100.0, SHARE, "MiB"),
        Row("training_3d_64", "work of training", "ours", "rival 1.2", not_measured="reference check failed: y"),
    ]
    table = goals_table(rows)
    assert len(table.splitlines()) == 2 + len(GOALS)
    (met,) = lines(table, "work of forward_3d_64")
    assert [cell.strip() for cell in met.split("|")[1:-1]] == [
        "work of forward_3d_64",
        "rival 1.2",
        "250 ms (250 - 250; n = 3)",
        "1 s (1 - 1; n = 3)",
        "4x",
        "≥ 3x (aim: 4.5x)",
        "yes",
    ]
    assert "**no**" in lines(table, "work of memory_forward_3d_64")[0]
    (failed,) = lines(table, "work of training")
    assert "reference check failed: y" in failed
    assert failed.rstrip(" |").endswith("-")
    assert "not run" in lines(table, "growth_3d")[0]


def test_results_tell_machine_backend_and_environment():
    rows = [measured("forward_3d_64", 0.25, 1.0), measured("bf16", 2.0, 1.0)]
    tuned = group("tuned_malloc", environment={"MALLOC_TOP_PAD_": "1"})
    text = results_markdown([group(rows=rows), tuned], "plot.png")
    assert text.count("- processor: P") == 1
    assert "networks (2026-01-31, 7 s), tuned_malloc (2026-01-31, 7 s):" in text
    assert "tuned_malloc ran with `MALLOC_TOP_PAD_=1`." in text
    assert "- our package, backend x" in text
    assert "](plot.png)" in text
    before, after = text.split("## Without a goal")
    assert "work of bf16" in after and "work of bf16" not in before
    assert "quick run" not in text


def test_another_machine_gets_its_own_description():
    other = group("memory", machine={"processor": "Q", "commit": "abc"})
    text = results_markdown([group(), other], "plot.png")
    assert "- processor: P" in text and "- processor: Q" in text


def test_quick_runs_say_that_they_are_no_results():
    assert "no results" in results_markdown([group(quick=True)], "plot.png")


def test_profile_tables_stand_beside_the_peaks():
    peak = {"median": 123.4, "q1": 120.0, "q3": 130.0, "samples": 5}
    tables = {"Stages": [{"stage": "stem", "ms": 1.234, "share": 0.25}, {"stage": "rest", "GFLOP": 0.0}]}
    peaks = dict.fromkeys(("matmul_gflops", "convolution_gflops", "copy_gbytes_per_s"), peak)
    text = results_markdown([group("profile", peaks=peaks, tables=tables)], "plot.png")
    assert "123 GFLOP/s (large matrix product)" in text
    stem, rest = lines(text, "| stem")[0], lines(text, "| rest")[0]
    assert [cell.strip() for cell in stem.split("|")[1:-1]] == ["stem", "1.23", "25.0%", "-"]
    assert [cell.strip() for cell in rest.split("|")[1:-1]] == ["rest", "-", "-", "-"]


def test_records_of_different_keys_share_a_table():
    assert records_table([{"a": "x"}, {"b": 2}]).splitlines()[0].split() == ["|", "a", "|", "b", "|"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234.5, "1234"), (99.96, "100"), (12.34, "12.3"), (0.000123456, "0.000123"), (2.0, "2")],
)
def test_numbers_have_three_digits_and_no_exponent(value, text):
    assert number(value) == text


def test_spreads_choose_their_unit():
    assert spread_text(Spread(0.01234, 0.012, 0.013, 4), "s") == "12.3 ms (12 - 13; n = 4)"
    assert spread_text(Spread(1.5, 1.4, 1.6, 4), "s") == "1.5 s (1.4 - 1.6; n = 4)"
    assert spread_text(Spread(95.2, 95.0, 96.0, 3), "MiB") == "95.2 MiB (95 - 96; n = 3)"


def test_report_writes_table_and_plot_from_what_is_there(tmp_path, capsys):
    rows = [
        measured("forward_3d_64", 0.25, 1.0),
        measured("memory_forward_3d_64", 120.0, 100.0, SHARE, "MiB"),
        measured("scan_forward_mamba_py", 0.01, 1.0),
    ]
    (tmp_path / "networks.json").write_text(json.dumps(group(rows=rows)), encoding="utf-8")
    assert report.main(["--out", str(tmp_path)]) == 0
    assert "work of forward_3d_64" in (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert (tmp_path / "benchmark.png").read_bytes().startswith(b"\x89PNG")
    assert "| yes" in capsys.readouterr().out.replace("    yes", " yes")


def test_nothing_measured_is_said(tmp_path, capsys):
    assert report.main(["--out", str(tmp_path)]) == 1
    assert "make bench" in capsys.readouterr().out
    assert not draw([Row("forward_3d_64", "w", "o", "b", not_measured="x")], tmp_path / "plot.png")
    assert list(tmp_path.iterdir()) == []

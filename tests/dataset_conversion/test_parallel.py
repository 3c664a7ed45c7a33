"""Workers: order, refusals, sudden death."""

from __future__ import annotations

import os

import pytest

from nnunetv2_lightm.dataset_conversion import _parallel
from nnunetv2_lightm.dataset_conversion._errors import CaseRefused, ConversionError
from nnunetv2_lightm.dataset_conversion._parallel import CaseOutcome, default_workers, process_cases


def test_outcomes_come_in_the_order_of_the_jobs(capsys):
    def convert_case(number):
        if number == 2:
            raise CaseRefused("two")
        return CaseOutcome(notes=[str(number)])

    outcomes = process_cases(convert_case, [(1,), (2,), (3,)], workers=1, title="x", show_progress=False)
    assert [outcome.notes for outcome in outcomes] == [["1"], [], ["3"]]
    assert [outcome.reason for outcome in outcomes] == [None, "two", None]
    assert capsys.readouterr().err == ""


def test_a_defect_is_not_taken_for_a_bad_case():
    with pytest.raises(ZeroDivisionError):
        process_cases(lambda number: 1 // number, [(0,)], workers=1, title="x", show_progress=False)


def test_a_worker_that_dies_is_an_error():
    with pytest.raises(ConversionError, match="fewer than --workers 2"):
        process_cases(os._exit, [(1,), (1,)], workers=2, title="x", show_progress=False)


def test_default_workers():
    assert 1 <= default_workers() <= 8


def test_no_more_processes_than_windows_waits_for(monkeypatch):
    class Asked(Exception):
        pass

    def asked(workers, *_, **__):
        raise Asked(workers)

    monkeypatch.setattr(_parallel, "ProcessPoolExecutor", asked)
    with pytest.raises(Asked, match="^61$"):
        process_cases(str, [(i,) for i in range(100)], workers=90, title="x", show_progress=False)

"""Statistics and alternation."""

from __future__ import annotations

import math

import pytest

from nnunetv2_lightm.measure.timing import Effort, Spread, alternate


class FakeTime:
    """A clock that only the candidates move on."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def __call__(self):
        return self.now

    def candidate(self, name, *seconds):
        """Takes the given seconds in turn, the last one again and again."""
        left = list(seconds)

        def run():
            self.calls.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run


def effort(**given):
    return Effort(**{"seconds": 1e9, "least_rounds": 3, "most_rounds": 3, "turn_seconds": 0.0, **given})


def test_median_and_quartiles():
    assert Spread.of([5.0, 1.0, 4.0, 2.0, 3.0]) == Spread(3.0, 2.0, 4.0, 5)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0, 1)
    assert Spread.of([1.0, 3.0]) == Spread(2.0, 1.5, 2.5, 2)


@pytest.mark.parametrize("samples", [[], [1.0, math.nan], [math.inf]])
def test_no_median_of_nothing_or_of_what_is_no_number(samples):
    with pytest.raises(ValueError, match="at least one finite sample"):
        Spread.of(samples)


def test_candidates_take_turns_whose_first_run_does_not_count():
    time = FakeTime()
    slow_at_first = {"a": time.candidate("a", 9, 1, 9, 1, 9, 1), "b": time.candidate("b", 99, 2, 99, 2, 99, 2)}
    found = alternate(slow_at_first, effort(), clock=time)
    assert time.calls == ["a", "a", "b", "b"] * 3
    assert found == {"a": Spread(1, 1, 1, 3), "b": Spread(2, 2, 2, 3)}


def test_a_fast_candidate_is_timed_several_times_in_its_turn():
    time = FakeTime()
    found = alternate(
        {"fast": time.candidate("fast", 1), "slow": time.candidate("slow", 50)}, effort(turn_seconds=4), clock=time
    )
    assert time.calls == (["fast"] * 5 + ["slow"] * 2) * 3
    assert (found["fast"].samples, found["slow"].samples) == (12, 3)


def test_a_round_is_not_begun_if_it_would_end_too_late():
    time = FakeTime()
    found = alternate({"a": time.candidate("a", 10)}, effort(seconds=90, least_rounds=2, most_rounds=99), clock=time)
    assert found["a"].samples == 4


def test_the_least_rounds_are_made_however_long_they_take():
    time = FakeTime()
    assert alternate({"a": time.candidate("a", 10)}, effort(seconds=5), clock=time)["a"].samples == 3


def test_what_cannot_run_is_left_out_and_said():
    time = FakeTime()
    found = alternate({"a": time.candidate("a", 1), "missing": None}, effort(), clock=time)
    assert found["missing"] is None
    assert found["a"].samples == 3

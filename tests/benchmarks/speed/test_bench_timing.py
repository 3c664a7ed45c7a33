"""The faster of two layouts, by runs that come after one which is not timed."""

from __future__ import annotations

from benchmarks.speed.harness import timing


def test_fastest_ignores_the_first_run(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def candidate(*seconds):
        left = list(seconds)

        def run():
            clock[0] += left.pop(0) if len(left) > 1 else left[0]

        return run

    assert timing.fastest({"a": candidate(1, 5), "b": candidate(50, 3)}) == "b"

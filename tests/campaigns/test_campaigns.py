"""Short versions of the campaigns; each module runs its own in full."""

from __future__ import annotations

import sys

import pytest

from . import mutated_files


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads Linux's account of memory")
def test_mutated_files():
    outcomes, failures = mutated_files.run(24, seed=1)
    assert failures == []
    assert len(outcomes) > 4, "every command both refuses and accepts"

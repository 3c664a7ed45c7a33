"""Transient memory."""

from __future__ import annotations

import numpy as np
import pytest

from nnunetv2_lightm.measure.peak_rss import not_measurable_reason, transient_mib


def test_transient_memory_is_what_a_run_needs_for_a_while():
    reason = not_measurable_reason()
    if reason:
        pytest.skip(reason)
    found = transient_mib(lambda: np.ones(64 << 17))  # 64 MiB
    assert 60 < found < 80

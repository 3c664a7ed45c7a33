"""Processors and memory, as a control group limits them."""

from __future__ import annotations

import os

import pytest

from nnunetv2_lightm import limits


@pytest.fixture
def group(tmp_path, monkeypatch):
    """The folder of a control group without limits."""
    monkeypatch.setattr(limits, "_GROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(8), raising=False)
    return tmp_path


@pytest.mark.parametrize(("quota", "cpus"), [("max 100000", 8), ("200000 100000", 2), ("20000 100000", 1)])
def test_the_quota_limits_the_processors(group, quota, cpus):
    (group / "cpu.max").write_text(f"{quota}\n")
    assert limits.usable_cpus() == cpus


def test_without_a_group_the_machine_is_the_limit(group):
    assert limits.usable_cpus() == 8
    assert limits.memory_gib() > 0.1
    assert limits.free_memory_bytes() > 0


def test_the_group_limits_the_memory(group):
    (group / "memory.max").write_text(f"{2**26}\n")
    assert limits.memory_gib() == 2**-4


@pytest.mark.parametrize(("cached", "free"), [(0, 2**20), (2**19, 2**20 + 2**19)])
def test_what_the_group_has_cached_counts_as_free(group, cached, free):
    (group / "memory.max").write_text(f"{2**26}\n")
    (group / "memory.current").write_text(f"{2**26 - 2**20}\n")
    (group / "memory.stat").write_text(f"anon 1\ninactive_file {cached}\n")
    assert limits.free_memory_bytes() == free

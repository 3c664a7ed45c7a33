"""The campaigns of `make campaigns`, short."""

from __future__ import annotations

import os

import pytest

from .kill9 import main


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends SIGKILL")
def test_a_conversion_that_is_killed(capsys):
    # One moment in an empty folder, one over an older data set.
    assert main(["convert", "--moments", "2"]) == 0, capsys.readouterr().out
    assert "0 wrong" in capsys.readouterr().out

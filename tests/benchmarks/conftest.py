"""A trainer without a data set, for the tests of the variants."""

from __future__ import annotations

from ..trainers.conftest import make_trainer  # noqa: F401

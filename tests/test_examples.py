"""The examples in the docstrings run and print what they say."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

WITH_EXAMPLES = (
    "networks.lightm_unet",
    "networks.lightm_unet_released",
    "ops.selective_scan",
    "layers.rvm",
    "layers.mamba1",
    "evaluation.bootstrap",
    "evaluation.paired",
    "evaluation.scores",
)


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples(module):
    failed, tried = doctest.testmod(import_module(f"nnunetv2_lightm.{module}"))
    assert tried and not failed

"""The engine and its Python files are of one version, or nothing is passed between them."""

from __future__ import annotations

import ctypes

import pytest

pytest.importorskip("lightm_runtime")
from lightm_runtime import interface
from lightm_runtime.interface import EngineError


@pytest.fixture
def load_anew():
    """The library's loader, forgetting what it has loaded."""
    interface.library.cache_clear()
    yield interface.library
    interface.library.cache_clear()


def test_the_engine_has_the_structures_of_its_python_files(load_anew):
    assert interface.layout_compiled_into(load_anew()) == interface.layout()


def test_two_pointers_in_another_order_are_refused(load_anew, monkeypatch):
    """The sizes are the same."""
    fields = list(interface.Pipeline._fields_)
    fields[-2:] = reversed(fields[-2:])

    class Pipeline(ctypes.Structure):
        _fields_ = fields

    structures = [Pipeline if kind is interface.Pipeline else kind for kind in interface.STRUCTURES]
    monkeypatch.setattr(interface, "STRUCTURES", structures)
    with pytest.raises(EngineError, match=r"differ in LightmPipeline.regions, LightmPipeline.channels\); install"):
        load_anew()


def test_an_engine_from_before_the_comparison_is_refused(load_anew, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda path: object())
    with pytest.raises(EngineError, match="differ in LightmNetwork, LightmNetwork.spatial_dims, "):
        load_anew()

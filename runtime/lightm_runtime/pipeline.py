"""The pipeline of a bundle, checked whole before any of it is used; docs/bundle.md of nnunetv2-lightm has its keys."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .images import FLAT, REORIENTED, TIFF, ending_of
from .interface import SCHEMES

READERS = ("SimpleITKIO", "NibabelIO", *REORIENTED, FLAT, TIFF)
STATISTICS = ("mean", "std", "percentile_00_5", "percentile_99_5")
NETWORK_SIZES = ("input_channels", "num_classes", "features", "bottleneck_rvm_layers", "expand", "d_state")
MOST_LABEL = 65535  # what a voxel of a segmentation can hold
MOST = 2**31 - 1  # of other whole numbers: the engine has closer limits
# As in src/segmentation.cpp: of an axis and of a patch, in voxels.
MOST_AXIS, MOST_PATCH = 2**14, 2**28

Test = Callable[[Any], bool]


class PipelineError(ValueError):
    """A pipeline is not usable; the message names the key, what is there, and what is needed."""


def check_pipeline(pipeline: Any) -> None:
    """Check every value that this package uses.

    Raises:
        PipelineError: naming the first one that is missing or is not what it must be.
    """
    top = _Section("", pipeline)
    top.need("name", _is_text, "a text")
    top.section("source")
    network = top.section("network")
    dims, channels, classes = _check_network(network)
    _check_input(top.section("input"), channels)
    _check_preprocessing(top.section("preprocessing"), dims)
    _check_inference(top.section("inference"), dims)
    _check_output(top.section("output"), classes)


def _check_network(network: _Section) -> tuple[int, int, int]:
    """Returns: spatial dimensions, input channels, classes."""
    network.need("type", lambda value: value == "LightMUNet", "LightMUNet, the one that this engine runs")
    dims = network.need("spatial_dims", _whole(2, 3), "2 or 3")
    for key in NETWORK_SIZES:
        network.need(key, _whole(0, MOST), "a whole number")
    levels = len(network.need("rvm_layers", _list_of(_whole(1, MOST)), "a list with a whole number for each level"))
    network.need("pooling", _list_of(_list_of(_whole(1, MOST), dims), levels), f"for each level {dims} strides")
    return dims, network["input_channels"], network["num_classes"]


def _check_input(given: _Section, channels: int) -> None:
    given.need("reader", READERS.__contains__, f"one of {', '.join(READERS)}")
    given.need("file_ending", _is_ending, "an ending of images, such as .nii.gz")
    described = given.need(
        "channels", _list_of(lambda value: isinstance(value, dict), channels), f"a list of the network's {channels}"
    )
    for i, content in enumerate(described):
        channel = _Section(f"input.channels[{i}]", content)
        channel.need("name", _is_text, "a text")
        scheme = channel.need("scheme", SCHEMES.__contains__, f"one of {', '.join(SCHEMES)}")
        channel.need("use_mask", _is_flag, "true or false")
        if scheme == "CTNormalization":
            statistics = channel.section("statistics")
            for key in STATISTICS:
                statistics.need(key, _number(-math.inf), "a finite number")


def _check_preprocessing(steps: _Section, dims: int) -> None:
    is_permutation = _list_of(_whole(0, 2), 3)
    steps.need(
        "transpose_forward",
        lambda value: is_permutation(value) and len(set(value)) == 3,
        "the axes 0, 1, 2 in an order",
    )
    steps.need("spacing_mm", _list_of(_number(0.0), dims), f"{dims} lengths in mm")
    for key, orders in (("resampling_data", (0, 1, 3)), ("resampling_logits", (0, 1))):
        how = steps.section(key)
        for order in ("order", "order_z"):
            needed = f"the order of a spline, {' or '.join(map(str, orders))}"
            how.need(order, lambda value, orders=orders: type(value) is int and value in orders, needed)
        how.need("force_separate_z", lambda value: value is None or _is_flag(value), "true, false or null")
        how.need("anisotropy_threshold", _number(0.0), "a number above 0")


def _check_inference(inference: _Section, dims: int) -> None:
    is_patch = _list_of(_whole(1, MOST_AXIS), dims)
    inference.need(
        "patch_size",
        lambda value: is_patch(value) and math.prod(value) <= MOST_PATCH,
        f"{dims} whole numbers of voxels from 1 to {MOST_AXIS}, {MOST_PATCH} voxels at most",
    )
    # Below these, tiles or weights would never end.
    inference.need("step", _between(0.1, 1.0), "a share of the patch, 0.1 to 1")
    inference.need(
        "gaussian_sigma", lambda value: value == 0 or _between(0.001, 1.0)(value), "0, or 0.001 to 1 patches"
    )
    is_axes = _list_of(_whole(0, dims - 1))
    inference.need(
        "mirroring_axes", lambda value: value == [] or is_axes(value), f"a list of axes from 0 to {dims - 1}"
    )


def _check_output(output: _Section, classes: int) -> None:
    is_label = _whole(0, MOST_LABEL)
    output.need("num_classes", lambda value: type(value) is int and value == classes, f"{classes}, as of the network")
    output.need(
        "regions_class_order",
        lambda value: value is None or _list_of(is_label, classes)(value),
        f"null, or a label from 0 to {MOST_LABEL} for each of {classes} regions",
    )
    labels = output.section("labels")
    for name in labels.content:
        is_value = f"a label from 0 to {MOST_LABEL}, or a list of such"
        labels.need(name, lambda value: is_label(value) or _list_of(is_label)(value), is_value)


class _Section:
    """An object in the JSON, with its name in messages."""

    def __init__(self, name: str, content: Any) -> None:
        if not isinstance(content, dict):
            raise PipelineError(f"its pipeline{name and '.'}{name} is {content!r:.60}; needed: an object")
        self.name, self.content = name, content

    def __getitem__(self, key: str) -> Any:
        if key not in self.content:
            raise PipelineError(f"its pipeline lacks {self._path(key)}")
        return self.content[key]

    def section(self, key: str) -> _Section:
        return _Section(self._path(key), self[key])

    def need(self, key: str, is_usable: Test, needed: str) -> Any:
        value = self[key]
        if not is_usable(value):
            raise PipelineError(f"{self._path(key)} of its pipeline is {value!r:.60}; needed: {needed}")
        return value

    def _path(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_ending(value: Any) -> bool:
    """A known one and nothing before it: it becomes a part of a file's name."""
    return _is_text(value) and value != "" and ending_of(Path(f"image{value}")) == value


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _whole(least: int, most: int) -> Test:
    """A bool is none, although Python counts it among them."""
    return lambda value: type(value) is int and least <= value <= most


def _number(above: float) -> Test:
    """A finite one; an integer may be larger than any float."""
    return lambda value: type(value) in (int, float) and value > above and abs(value) <= sys.float_info.max


def _between(least: float, most: float) -> Test:
    return lambda value: type(value) in (int, float) and least <= value <= most


def _list_of(is_usable: Test, length: int | None = None) -> Test:
    """A list of that length; None: of any but 0."""
    return lambda value: (
        isinstance(value, list)
        and (len(value) == length if length is not None else len(value) > 0)
        and all(map(is_usable, value))
    )

"""What a bundle must describe to become a page. Its checksum does not show that it does: anyone can compute one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from ..json_input import Content, Count, JsonInputError, Labels, Length, Number, Positive, Text, check
from .errors import ExportError
from .pipeline import READERS, SCHEMES

MOST_LEVELS, MOST_LABEL = 8, 65535  # of runtime/src/lightm.h
DTYPES = ("F16", "F32")  # that the page and lightm-runtime read


def check_description(path: Path, metadata: Mapping[str, str], dtypes: Mapping[str, str]) -> None:
    """Raises ExportError if a bundle's pipeline lacks what the page reads, or a tensor has another type.

    Args:
        path: The bundle, for the message.
        metadata: Of the safetensors file.
        dtypes: Of its tensors, by name, as safetensors calls them.
    """
    try:
        check(json.loads(metadata.get("pipeline", "")), Pipeline, f"{path}: its pipeline")
    except (JsonInputError, ValueError, RecursionError) as error:
        what = error if isinstance(error, JsonInputError) else f"{path}: its pipeline is not valid JSON ({error})"
        raise ExportError(f"{what}; export the model again") from error
    if not dtypes:
        raise ExportError(f"{path}: has no weights; export the model again")
    for name, dtype in dtypes.items():
        if dtype not in DTYPES:
            raise ExportError(
                f"{path}: the tensor {name} is {dtype}; needed: {' or '.join(DTYPES)}: export the model again"
            )


Axis = Annotated[int, Field(ge=0, le=2)]
Label = Annotated[int, Field(ge=0, le=MOST_LABEL)]
Sizes = Annotated[list[Positive], Field(min_length=2, max_length=3)]


class _Network(Content):
    type: Literal["LightMUNet"]
    spatial_dims: Literal[2, 3]
    input_channels: Positive
    num_classes: Positive
    features: Positive
    rvm_layers: Annotated[list[Positive], Field(min_length=1, max_length=MOST_LEVELS)]
    bottleneck_rvm_layers: Count
    expand: Positive
    d_state: Positive
    pooling: list[Sizes]


class _Statistics(Content):
    mean: Number
    std: Number
    percentile_00_5: Number
    percentile_99_5: Number


class _Channel(Content):
    name: Text
    scheme: Literal[SCHEMES]
    use_mask: bool
    statistics: _Statistics | None = None

    @model_validator(mode="after")
    def _has_statistics(self) -> _Channel:
        if self.scheme == "CTNormalization" and self.statistics is None:
            raise ValueError("CTNormalization needs statistics")
        return self


class _Input(Content):
    channels: list[_Channel]
    reader: Literal[READERS]


class _Resampling(Content):
    order: Count
    order_z: Count
    force_separate_z: bool | None
    anisotropy_threshold: Length


def _permutation(axes: list[int]) -> list[int]:
    if sorted(axes) != [0, 1, 2]:
        raise ValueError("expected the axes 0, 1, 2 in an order")
    return axes


class _Preprocessing(Content):
    transpose_forward: Annotated[list[Axis], AfterValidator(_permutation)]
    spacing_mm: Annotated[list[Length], Field(min_length=2, max_length=3)]
    resampling_data: _Resampling
    resampling_logits: _Resampling


class _Inference(Content):
    patch_size: Sizes
    step: Length
    gaussian_sigma: Number
    mirroring_axes: list[Axis]


class _Output(Content):
    num_classes: Positive
    labels: Labels
    regions_class_order: list[Label] | None


class _Source(Content):
    dataset: Text
    configuration: Text
    trainer: Text


class Pipeline(Content):
    """The keys that the page reads, with the types that it takes for granted; the engine checks ranges."""

    name: Text
    network: _Network
    input: _Input
    preprocessing: _Preprocessing
    inference: _Inference
    output: _Output
    source: _Source
    licence: Text | None = None
    citation: list[Text]

    @model_validator(mode="after")
    def _lengths(self) -> Pipeline:
        network, regions = self.network, self.output.regions_class_order
        dims, levels = network.spatial_dims, len(network.rvm_layers)
        found = {
            "input.channels": (len(self.input.channels), network.input_channels),
            "network.pooling": (len(network.pooling), levels),
            "output.num_classes": (self.output.num_classes, network.num_classes),
            "output.regions_class_order": (
                network.num_classes if regions is None else len(regions),
                network.num_classes,
            ),
            "preprocessing.spacing_mm": (len(self.preprocessing.spacing_mm), dims),
            "inference.patch_size": (len(self.inference.patch_size), dims),
            **{f"network.pooling[{i}]": (len(strides), dims) for i, strides in enumerate(network.pooling)},
        }
        for key, (given, needed) in found.items():
            if given != needed:
                raise ValueError(f"{key} has {given}; the network has {needed}")
        if any(axis >= dims for axis in self.inference.mirroring_axes):
            raise ValueError(
                f"inference.mirroring_axes are {self.inference.mirroring_axes}; the network has {dims} axes"
            )
        return self

"""The compiled engine, ``src/lightm.h``, by ctypes."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .bundle import Bundle, BundleError
from .engine_file import FILE_NAMES

MOST_LEVELS = 8
SCHEMES = (
    *("ZScoreNormalization", "CTNormalization", "NoNormalization"),
    *("RescaleTo01Normalization", "RGBTo01Normalization"),
)
STATUS_CANCELLED = 2
STATUSES = {
    1: "not enough memory",
    3: "the image has NaN or infinite voxels",
    4: "the model was trained on RGB images, and the image has values below 0 or above 255",
    5: "its size or spacing cannot be: an axis would have no voxel, or is not a number",
    6: "the network computed NaN or infinity for it",
}

Triple = ctypes.c_int64 * 3
Spacing = ctypes.c_double * 3
Progress = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


class EngineError(Exception):
    """The engine cannot segment an image; the message says why."""


class Cancelled(Exception):
    """The caller's progress function asked for an end."""


def _fields(ctype: type, names: str) -> list[tuple[str, type]]:
    return [(name, ctype) for name in names.split()]


class Network(ctypes.Structure):
    """``LightmNetwork``."""

    _fields_ = [
        *_fields(ctypes.c_int64, "spatial_dims input_channels classes features levels bottleneck_layers expand states"),
        ("rvm_layers", ctypes.c_int64 * MOST_LEVELS),
        ("pooling", Triple * MOST_LEVELS),
    ]


class Channel(ctypes.Structure):
    """``LightmChannel``."""

    _fields_ = [*_fields(ctypes.c_int64, "scheme use_mask"), *_fields(ctypes.c_double, "mean std lower upper")]


class Resampling(ctypes.Structure):
    """``LightmResampling``."""

    _fields_ = _fields(ctypes.c_int64, "order order_z force_separate_z")


class Pipeline(ctypes.Structure):
    """``LightmPipeline``."""

    _fields_ = [
        *_fields(Triple, "patch transpose"),
        ("spacing", Spacing),
        ("anisotropy_threshold", ctypes.c_double),
        *_fields(Resampling, "data logits"),
        *_fields(ctypes.c_double, "step sigma"),
        ("mirror", Triple),
        ("channels", ctypes.POINTER(Channel)),
        ("regions", ctypes.POINTER(ctypes.c_int64)),
    ]


class Model(ctypes.Structure):
    """``LightmModel``."""

    _fields_ = [
        ("network", Network),
        ("pipeline", Pipeline),
        ("folds", ctypes.c_int64),
        ("tensors", ctypes.POINTER(ctypes.c_void_p)),
    ]


class LoadedModel:
    """A bundle as the engine takes it.

    Args:
        bundle: The model.
        mirroring: Whether to average over mirrored images, as the model was exported to.

    Raises:
        BundleError: if the pipeline or the weights are not what this engine runs.
    """

    def __init__(self, bundle: Bundle, mirroring: bool = True) -> None:
        self.bundle = bundle
        try:
            self.network = network_of(bundle.pipeline["network"])
            self._tensors = [self._tensor(fold, name) for fold in bundle.folds for name in tensor_names(self.network)]
            self._model = Model(self.network, self._pipeline(mirroring), len(bundle.folds))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise BundleError(
                f"{bundle.path}: its pipeline does not fit this engine ({type(error).__name__}: {error})"
            ) from error
        self._check_tensors()
        addresses = [tensor.ctypes.data for tensor in self._tensors]
        self._model.tensors = (ctypes.c_void_p * len(addresses))(*addresses)

    @property
    def channels(self) -> list[dict[str, Any]]:
        """Name and normalisation of each input channel."""
        return self.bundle.pipeline["input"]["channels"]

    def segment(
        self,
        image: np.ndarray,
        spacing_mm: Sequence[float],
        threads: int | None = None,
        progress: Callable[[int, int], bool | None] | None = None,
    ) -> np.ndarray:
        """The labels of an image.

        Args:
            image: (channels, z, y, x).
            spacing_mm: (z, y, x).
            threads: None: as many as there are cores for this process.
            progress: Called with passes of the network done and in all; True cancels.

        Returns: (z, y, x), uint8, or uint16 where there are more than 255 labels.

        Raises:
            EngineError: if the image cannot be segmented.
            Cancelled: if ``progress`` asked for it.
        """
        image = np.ascontiguousarray(image, np.float32)
        labels = np.zeros(image.shape[1:], np.uint8 if self._most_label() <= 255 else np.uint16)
        caught: list[BaseException] = []

        def call(_: int, done: int, total: int) -> int:
            try:
                return bool(progress and progress(done, total))
            except BaseException as error:  # it must not pass through C++; it goes on below
                caught.append(error)
                return 1

        status = library().lightm_segment(
            ctypes.byref(self._model),
            image.ctypes.data,
            Triple(*image.shape[1:]),
            Spacing(*map(float, spacing_mm)),
            labels.ctypes.data,
            labels.itemsize,
            threads or available_threads(),
            Progress(call),
            None,
        )
        if caught:
            raise caught[0]
        if status == STATUS_CANCELLED:
            raise Cancelled
        if status:
            raise EngineError(STATUSES[status])
        return labels

    def forward(self, image: np.ndarray, fold: int = 0, threads: int | None = None) -> np.ndarray:
        """Logits of one patch: (channels, z, y, x) -> (classes, z, y, x), z = 1 in 2D."""
        image = np.ascontiguousarray(image, np.float32)
        logits = np.empty((self.network.classes, *image.shape[1:]), np.float32)
        count = len(tensor_names(self.network))
        addresses = [tensor.ctypes.data for tensor in self._tensors[fold * count : (fold + 1) * count]]
        status = library().lightm_forward(
            ctypes.byref(self.network),
            (ctypes.c_void_p * count)(*addresses),
            image.ctypes.data,
            Triple(*image.shape[1:]),
            logits.ctypes.data,
            threads or available_threads(),
        )
        if status:
            raise EngineError(STATUSES[status])
        return logits

    def _most_label(self) -> int:
        regions = self.bundle.pipeline["output"]["regions_class_order"]
        return max(regions) if regions else self.network.classes - 1

    def _tensor(self, fold: str, name: str) -> np.ndarray:
        tensor = self.bundle.tensors.get(f"{fold}/{name}")
        if tensor is None:
            raise BundleError(f"{self.bundle.path}: lacks the tensor {fold}/{name}")
        return np.ascontiguousarray(tensor)

    def _check_tensors(self) -> None:
        names = tensor_names(self.network)
        for i, tensor in enumerate(self._tensors):
            needed = library().lightm_tensor_elements(ctypes.byref(self.network), i % len(names))
            if tensor.size != needed:
                name = names[i % len(names)]
                raise BundleError(f"{self.bundle.path}: the tensor {name} has {tensor.size} numbers, expected {needed}")

    def _pipeline(self, mirroring: bool) -> Pipeline:
        pipeline = self.bundle.pipeline
        steps, inference, output = pipeline["preprocessing"], pipeline["inference"], pipeline["output"]
        axes = [axis + 3 - self.network.spatial_dims for axis in inference["mirroring_axes"]] if mirroring else []
        self._channels = (Channel * len(self.channels))(*map(_channel, self.channels))
        regions = output["regions_class_order"]
        self._regions = (ctypes.c_int64 * len(regions))(*regions) if regions else None
        if len(self.channels) != self.network.input_channels:
            raise ValueError(f"{len(self.channels)} channels, the network takes {self.network.input_channels}")
        if regions and len(regions) != self.network.classes:
            raise ValueError(f"{len(regions)} regions, the network has {self.network.classes}")
        return Pipeline(
            patch=Triple(*_three(inference["patch_size"], 1)),
            transpose=Triple(*steps["transpose_forward"]),
            spacing=Spacing(*_three(steps["spacing_mm"], 0.0)),
            anisotropy_threshold=steps["anisotropy_threshold"],
            data=_resampling(steps["resampling_data"]),
            logits=_resampling(steps["resampling_logits"]),
            step=inference["step"],
            sigma=inference["gaussian_sigma"],
            mirror=Triple(*(int(axis in axes) for axis in range(3))),
            channels=self._channels,
            regions=self._regions,
        )


def network_of(description: dict[str, Any]) -> Network:
    """The engine's description of a network from the bundle's."""
    levels = description["rvm_layers"]
    network = Network(
        description["spatial_dims"],
        description["input_channels"],
        description["num_classes"],
        description["features"],
        len(levels),
        description["bottleneck_rvm_layers"],
        description["expand"],
        description["d_state"],
    )
    if description["type"] != "LightMUNet" or len(levels) > MOST_LEVELS or len(description["pooling"]) != len(levels):
        raise ValueError("the network is not a LightMUNet of at most 8 levels")
    for level, (count, stride) in enumerate(zip(levels, description["pooling"])):
        network.rvm_layers[level] = count
        network.pooling[level] = Triple(*_three(stride, 1))
    if library().lightm_tensor_count(ctypes.byref(network)) < 0:
        raise ValueError("the network has sizes that this engine does not run")
    return network


def tensor_names(network: Network) -> list[str]:
    """Names in the state dict in the engine's order, ``tensor_elements`` in src/network.cpp."""
    names = [f"stem.{name}" for name in ("pointwise.weight", "pointwise.bias", "depthwise.weight", "depthwise.bias")]
    for level in range(network.levels):
        for layer in range(network.rvm_layers[level]):
            names += [f"encoder.{level}.layers.{layer}.{name}" for name in RVM_NAMES]
    for layer in range(network.bottleneck_layers):
        names += [f"bottleneck.{layer}.{name}" for name in RVM_NAMES]
    for block in range(network.levels):
        names += [f"decoder.blocks.{block}.{name}" for name in DECODER_NAMES]
    head = ("depthwise.weight", "depthwise.bias", "pointwise.weight", "pointwise.bias")
    return [*names, *(f"decoder.seg_layers.0.{name}" for name in head)]


RVM_NAMES = (
    *("norm_in.weight", "norm_in.bias", "vssm.in_proj.weight", "vssm.gate_proj.weight"),
    *("vssm.dwconv.weight", "vssm.dwconv.bias", "vssm.ssms.0.x_proj.weight", "vssm.ssms.0.dt_proj.weight"),
    *("vssm.ssms.0.dt_proj.bias", "vssm.ssms.0.A_log", "vssm.ssms.0.D", "vssm.norm.weight", "vssm.norm.bias"),
    *("vssm.out_proj.weight", "scale", "norm_out.weight", "norm_out.bias", "projection.weight", "projection.bias"),
)
DECODER_NAMES = ("dwconv.weight", "dwconv.bias", "scale", "halve.weight", "halve.bias")


def _three(values: Sequence[Any], first: Any) -> list[Any]:
    """Values of all three axes; a 2D model's have none of z."""
    return [first, *values] if len(values) == 2 else list(values)


def _channel(channel: dict[str, Any]) -> Channel:
    statistics = channel["statistics"] or {}
    bounds = [float(statistics.get(key, 0.0)) for key in ("mean", "std", "percentile_00_5", "percentile_99_5")]
    return Channel(SCHEMES.index(channel["scheme"]), bool(channel["use_mask"]), *bounds)


def _resampling(resampling: dict[str, Any]) -> Resampling:
    force = resampling["force_separate_z"]
    return Resampling(resampling["order"], resampling["order_z"], -1 if force is None else int(force))


def available_threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def library() -> ctypes.CDLL:
    """The compiled library. Raises EngineError with the reason where it does not load."""
    path = Path(__file__).with_name(FILE_NAMES.get(sys.platform, FILE_NAMES["linux"]))
    try:
        found = ctypes.CDLL(str(path))
    except OSError as error:
        raise EngineError(f"the engine does not load ({error}); install lightm-runtime again") from error
    found.lightm_model_bytes.restype = ctypes.c_int64
    if found.lightm_model_bytes() != ctypes.sizeof(Model):
        raise EngineError("the engine is of another version than its Python files; install lightm-runtime again")
    for name in ("lightm_tensor_count", "lightm_tensor_elements", "lightm_window_starts"):
        getattr(found, name).restype = ctypes.c_int64
    pointer, integer, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
    found.lightm_tensor_count.argtypes = [pointer]
    found.lightm_tensor_elements.argtypes = [pointer, integer]
    found.lightm_segment.argtypes = [*[pointer] * 5, integer, integer, Progress, pointer]
    found.lightm_forward.argtypes = [*[pointer] * 5, integer]
    for name in ("lightm_resample", "lightm_resample_float"):
        getattr(found, name).argtypes = [*[pointer] * 7, number]
    found.lightm_crop.argtypes = [pointer, integer, pointer, pointer]
    found.lightm_crop.restype = None
    found.lightm_normalise.argtypes = [pointer, integer, pointer, pointer]
    found.lightm_mask.argtypes = [pointer, integer, pointer, pointer]
    found.lightm_gaussian.argtypes = [pointer, integer, number, pointer]
    found.lightm_gaussian.restype = None
    found.lightm_window_starts.argtypes = [integer, integer, number, pointer]
    found.lightm_labels.argtypes = [pointer, integer, *[pointer] * 5, number, pointer, pointer]
    found.lightm_half_to_float.argtypes = [pointer, pointer, integer]
    found.lightm_half_to_float.restype = None
    return found

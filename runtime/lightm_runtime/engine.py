"""A model in the compiled engine."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .bundle import Bundle, BundleError
from .interface import (
    MOST_LEVELS,
    SCHEMES,
    STATUS_CANCELLED,
    STATUS_NO_MEMORY,
    STATUS_TOO_LARGE,
    STATUSES,
    Channel,
    EngineError,
    Model,
    Network,
    Pipeline,
    Progress,
    Resampling,
    Spacing,
    Triple,
    library,
)
from .pipeline import STATISTICS
from .tensor_names import tensor_names


class Cancelled(Exception):
    """The caller's progress function asked for an end."""


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
        except ValueError as error:
            raise BundleError(f"{bundle.path}: {error}") from error
        self._tensors = [self._tensor(fold, name) for fold in bundle.folds for name in tensor_names(self.network)]
        self._model = Model(self.network, self._pipeline(mirroring), len(bundle.folds))
        self._check_tensors()
        if not library().lightm_is_sound(ctypes.byref(self._model)):
            raise BundleError(
                f"{bundle.path}: its pipeline has numbers that this engine does not take (docs/bundle.md of "
                "nnunetv2-lightm has their limits); update lightm-runtime, or export the model again"
            )
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
            threads: None: as many as there are cores for this process, which is the most.
            progress: Called with passes of the network done and in all; True cancels.

        Returns: (z, y, x), uint8, or uint16 where there are more than 255 labels.

        Raises:
            EngineError: if the image cannot be segmented, or is not of this shape.
            Cancelled: if ``progress`` asked for it.
        """
        image = self._as_engine_reads(image)
        if len(spacing_mm) != 3:
            raise EngineError(f"the spacing is {tuple(spacing_mm)}; needed: three lengths in mm, (z, y, x)")
        shape, spacing = Triple(*image.shape[1:]), Spacing(*map(float, spacing_mm))
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
            shape,
            spacing,
            labels.ctypes.data,
            labels.itemsize,
            _threads(threads),
            Progress(call),
            None,
        )
        if caught:
            raise caught[0]
        if status == STATUS_CANCELLED:
            raise Cancelled
        if status in (STATUS_NO_MEMORY, STATUS_TOO_LARGE):
            raise EngineError(f"{STATUSES[status]}: {self._resampled(image, shape, spacing)}")
        if status:
            raise EngineError(STATUSES[status])
        return labels

    def _resampled(self, image: np.ndarray, shape: ctypes.Array, spacing: ctypes.Array) -> str:
        """What its spacing makes of an image: most that are too large have one in another unit."""
        size = Spacing()
        library().lightm_resampled_size(ctypes.byref(self._model), image.ctypes.data, shape, spacing, size)
        steps = self.bundle.pipeline["preprocessing"]
        model_mm = _three(steps["spacing_mm"], None)
        axes = [steps["transpose_forward"].index(axis) for axis in range(3)]
        of_model = " x ".join("any" if model_mm[axis] is None else f"{model_mm[axis]:.6g}" for axis in axes)
        return (
            f"its spacing, {_times(spacing)} mm, and the model's, {of_model} mm, (z, y, x), would make "
            f"{_times(size)} voxels of its {_times(shape)}; check its spacing"
        )

    def forward(self, image: np.ndarray, fold: int = 0, threads: int | None = None) -> np.ndarray:
        """Logits of one patch: (channels, z, y, x) -> (classes, z, y, x), z = 1 in 2D.

        Raises:
            EngineError: if the patch is not of this shape, or there is no such fold.
        """
        image, folds = self._as_engine_reads(image), len(self.bundle.folds)
        if not 0 <= fold < folds:
            raise EngineError(f"fold {fold} is not in the model: it has {folds}, counted from 0")
        logits = np.empty((self.network.classes, *image.shape[1:]), np.float32)
        count = len(tensor_names(self.network))
        addresses = [tensor.ctypes.data for tensor in self._tensors[fold * count : (fold + 1) * count]]
        status = library().lightm_forward(
            ctypes.byref(self.network),
            (ctypes.c_void_p * count)(*addresses),
            image.ctypes.data,
            Triple(*image.shape[1:]),
            logits.ctypes.data,
            _threads(threads),
        )
        if status:
            raise EngineError(STATUSES[status])
        return logits

    def _as_engine_reads(self, image: np.ndarray) -> np.ndarray:
        """float32, voxel by voxel; the engine trusts that there are as many as it takes."""
        image, needed = np.ascontiguousarray(image, np.float32), self.network.input_channels
        if image.ndim != 4 or len(image) != needed:
            raise EngineError(f"the image is of shape {image.shape}; needed: ({needed}, z, y, x), the model's channels")
        return image

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
        return Pipeline(
            patch=Triple(*_three(inference["patch_size"], 1)),
            transpose=Triple(*steps["transpose_forward"]),
            spacing=Spacing(*_three(steps["spacing_mm"], 0.0)),
            data=_resampling(steps["resampling_data"]),
            logits=_resampling(steps["resampling_logits"]),
            step=inference["step"],
            sigma=inference["gaussian_sigma"],
            mirror=Triple(*(int(axis in axes) for axis in range(3))),
            channels=self._channels,
            regions=self._regions,
        )


def network_of(description: dict[str, Any]) -> Network:
    """The engine's description of a network from the bundle's.

    Raises:
        ValueError: if the engine does not run it.
    """
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
    if len(levels) > MOST_LEVELS:
        raise ValueError(f"its network has {len(levels)} levels; the engine runs up to {MOST_LEVELS}")
    for level, (count, stride) in enumerate(zip(levels, description["pooling"])):
        network.rvm_layers[level] = count
        network.pooling[level] = Triple(*_three(stride, 1))
    if library().lightm_tensor_count(ctypes.byref(network)) < 0:
        raise ValueError("its network has sizes that this engine does not run; update lightm-runtime")
    return network


def _three(values: Sequence[Any], first: Any) -> list[Any]:
    """Values of all three axes; a 2D model's have none of z."""
    return [first, *values] if len(values) == 2 else list(values)


def _times(numbers: Sequence[float]) -> str:
    return " x ".join(f"{number:.6g}" for number in numbers)


def _channel(channel: dict[str, Any]) -> Channel:
    statistics = channel["statistics"] if channel["scheme"] == "CTNormalization" else dict.fromkeys(STATISTICS, 0.0)
    bounds = [float(statistics[key]) for key in STATISTICS]
    return Channel(SCHEMES.index(channel["scheme"]), bool(channel["use_mask"]), *bounds)


def _resampling(resampling: dict[str, Any]) -> Resampling:
    force = resampling["force_separate_z"]
    separate = -1 if force is None else int(force)
    return Resampling(resampling["order"], resampling["order_z"], separate, resampling["anisotropy_threshold"])


def _threads(wanted: int | None) -> int:
    """More than cores would wait for one another."""
    available = available_threads()
    return max(1, min(wanted or available, available))


def available_threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

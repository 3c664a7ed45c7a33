"""The structures and functions of the compiled engine, ``src/lightm.h``, by ctypes."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from pathlib import Path

from .engine_file import FILE_NAMES

MOST_LEVELS = 8
# In the order of LightmScheme.
SCHEMES = (
    "ZScoreNormalization",
    "CTNormalization",
    "NoNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
)
STATUS_NO_MEMORY, STATUS_CANCELLED, STATUS_TOO_LARGE = 1, 2, 7
STATUSES = {
    STATUS_NO_MEMORY: "not enough memory",
    3: "the image has NaN or infinite voxels",
    4: "the model was trained on RGB images, and the image has values below 0 or above 255",
    5: "its size or spacing cannot be: an axis would have no voxel, or is not a number",
    6: "the network computed NaN or infinity for it",
    STATUS_TOO_LARGE: "too large for the engine",
}

Triple = ctypes.c_int64 * 3
Spacing = ctypes.c_double * 3
Progress = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


class EngineError(Exception):
    """The engine cannot segment an image, or does not load; the message says why."""


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

    _fields_ = [
        *_fields(ctypes.c_int64, "order order_z force_separate_z"),
        ("anisotropy_threshold", ctypes.c_double),
    ]


class Pipeline(ctypes.Structure):
    """``LightmPipeline``."""

    _fields_ = [
        *_fields(Triple, "patch transpose"),
        ("spacing", Spacing),
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


STRUCTURES = (Network, Channel, Resampling, Pipeline, Model)


def layout() -> dict[str, tuple[int, int]]:
    """Offset and size in bytes of each structure and field, by the name that they have in C."""
    places = {}
    for structure in STRUCTURES:
        name = f"Lightm{structure.__name__}"
        places[name] = (0, ctypes.sizeof(structure))
        for field, _ in structure._fields_:
            place = getattr(structure, field)
            places[f"{name}.{field}"] = (place.offset, place.size)
    return places


def layout_compiled_into(engine: ctypes.CDLL) -> dict[str, tuple[int, int]]:
    """The same as compiled into the engine; empty if the library does not export it."""
    places: dict[str, tuple[int, int]] = {}
    if not hasattr(engine, "lightm_layout"):
        return places
    engine.lightm_layout.argtypes = [ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p]
    engine.lightm_layout.restype = ctypes.c_char_p
    offset, size = ctypes.c_int64(), ctypes.c_int64()
    while (name := engine.lightm_layout(len(places), ctypes.byref(offset), ctypes.byref(size))) is not None:
        places[name.decode()] = (offset.value, size.value)
    return places


@cache
def library() -> ctypes.CDLL:
    """The compiled library. Raises EngineError with the reason where it does not load."""
    path = Path(__file__).with_name(FILE_NAMES.get(sys.platform, FILE_NAMES["linux"]))
    try:
        engine = ctypes.CDLL(str(path))
    except OSError as error:
        raise EngineError(f"the engine does not load ({error}); install lightm-runtime again") from error
    compiled, ours = layout_compiled_into(engine), layout()
    if differing := [name for name in ours | compiled if ours.get(name) != compiled.get(name)]:
        raise EngineError(
            f"the engine is of another version than its Python files (they differ in {', '.join(differing[:3])}); "
            "install lightm-runtime again"
        )
    for name in ("lightm_tensor_count", "lightm_tensor_elements", "lightm_window_starts"):
        getattr(engine, name).restype = ctypes.c_int64
    pointer, integer, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
    engine.lightm_tensor_count.argtypes = [pointer]
    engine.lightm_tensor_elements.argtypes = [pointer, integer]
    engine.lightm_is_sound.argtypes = [pointer]
    engine.lightm_resampled_size.argtypes = [pointer] * 5
    engine.lightm_resampled_size.restype = None
    engine.lightm_segment.argtypes = [*[pointer] * 5, integer, integer, Progress, pointer]
    engine.lightm_forward.argtypes = [*[pointer] * 5, integer]
    for name in ("lightm_resample", "lightm_resample_float"):
        getattr(engine, name).argtypes = [pointer] * 7
    engine.lightm_crop.argtypes = [pointer, integer, pointer, pointer]
    engine.lightm_crop.restype = None
    engine.lightm_normalise.argtypes = [pointer, integer, pointer, pointer]
    engine.lightm_mask.argtypes = [pointer, integer, pointer, pointer]
    engine.lightm_gaussian.argtypes = [pointer, integer, number, pointer]
    engine.lightm_gaussian.restype = None
    engine.lightm_window_starts.argtypes = [integer, integer, number, pointer]
    engine.lightm_labels.argtypes = [pointer, integer, *[pointer] * 7]
    engine.lightm_half_to_float.argtypes = [pointer, pointer, integer]
    engine.lightm_half_to_float.restype = None
    return engine

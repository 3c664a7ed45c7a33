"""JSON files that others may have written: bounded in size, every value checked for type and range on reading.

A pydantic model on the base :class:`Content` declares what a file may hold; an error names the file and the key.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from .dataset_json import is_file_ending, label_values
from .escaping import short_repr

MAX_BYTES = 256 * 2**20
MAX_NAME, MAX_TEXT, MAX_LONG_TEXT = 255, 4096, 2**17
_SEPARATORS = frozenset("/\\")


class JsonInputError(ValueError):
    """A file that is not JSON, or does not hold what it should; the message names the file and the key."""


class Content(BaseModel):
    """What a file may hold: no conversion of types, no NaN and no infinity. Further keys are left alone."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, str_max_length=MAX_LONG_TEXT, frozen=True)


def _file_name(text: str) -> str:
    if not text.strip() or _SEPARATORS & set(text) or text in (".", "..") or "\0" in text:
        raise ValueError("expected a name that can be one of a file: no / or \\, not empty, not . or ..")
    return text


def _identifier(text: str) -> str:
    if not text.isidentifier():
        raise ValueError("expected the name of a Python class: letters, digits and underscores")
    return text


def _file_ending(text: str) -> str:
    if not is_file_ending(text):
        raise ValueError('expected a file ending such as ".nii.gz"')
    return text


def _path(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError("expected the path of a folder")
    return text


def _label_value(value: object) -> object:
    if label_values(value) is None:
        raise ValueError("expected the value of a label, a whole number from 0, or a list of such")
    return value


def is_scalar(value: object) -> bool:
    """A text that is not too long, a finite number, true, false or null."""
    if isinstance(value, str):
        return len(value) <= MAX_TEXT
    return value is None or (isinstance(value, (int, float)) and abs(value) < math.inf)


Text = Annotated[str, Field(max_length=MAX_TEXT)]
Name = Annotated[str, Field(max_length=MAX_NAME, min_length=1)]
FileName = Annotated[str, Field(max_length=MAX_NAME), AfterValidator(_file_name)]
FileEnding = Annotated[str, AfterValidator(_file_ending)]
ClassName = Annotated[str, Field(max_length=MAX_NAME), AfterValidator(_identifier)]
FolderPath = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(_path)]
Count = Annotated[int, Field(ge=0, le=10**15)]
Positive = Annotated[int, Field(ge=1, le=10**9)]
Number = Annotated[float, Field(ge=-1e30, le=1e30)]
Amount = Annotated[float, Field(ge=0, le=1e30)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Length = Annotated[float, Field(gt=0, le=1e9)]
# As dataset.json has them: a value, or the values of a region.
Labels = dict[Name, Annotated[Any, AfterValidator(_label_value)]]

Model = TypeVar("Model", bound=Content)


def read_json(path: Path) -> Any:
    """The content of a file, unchecked.

    Raises: JsonInputError: if it cannot be read, is larger than ``MAX_BYTES``, or is not JSON.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise JsonInputError(f"{path}: has {size:,} bytes; at most {MAX_BYTES:,} are read")
        return json.loads(path.read_text(encoding="utf-8"))
    except JsonInputError:
        raise
    except RecursionError:
        raise JsonInputError(f"{path}: cannot be read: lists or mappings in each other, too deep") from None
    except (OSError, ValueError) as error:
        raise JsonInputError(f"{path}: cannot be read: {error}") from error


def check(content: object, model: type[Model], place: object) -> Model:
    """Content as a model.

    Args:
        content: As :func:`read_json` returns it.
        model: What it should be.
        place: Where it comes from, for the message: a path, or a place in a file.
    Raises: JsonInputError: naming the place and the key.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise JsonInputError(_explain(error, place)) from None


def _explain(error: ValidationError, place: object) -> str:
    found = error.errors(include_url=False)
    missing = [one for one in found if one["type"] == "missing"]
    if missing:
        above = missing[0]["loc"][:-1]
        names = ", ".join(str(one["loc"][-1]) for one in missing if one["loc"][:-1] == above)
        return f"{place}: lacks {names}" + (f" in {_key(above)}" if above else "")
    first, *others = found
    message = first["msg"].removeprefix("Value error, ")
    more = f" (and {len(others)} more such errors)" if others else ""
    key, given = _key(first["loc"]), short_repr(first["input"])
    return f"{place}: {key + ' is ' if key else ''}{given}: {message[0].lower() + message[1:]}{more}"


def _key(loc: Iterable[str | int]) -> str:
    """E.g. ``epochs[0].val_loss``; pydantic marks a key of a mapping, whose value is right, by "[key]"."""
    key = ""
    for part in loc:
        if part != "[key]":
            key += f"[{part}]" if isinstance(part, int) else f".{short_repr(part)}"
    return key.lstrip(".").replace("'", "")

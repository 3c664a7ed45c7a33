"""The random split into training, validation and test cases: seeded, stratified by source, with exact sizes."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction

from ._errors import ConversionError

PARTS = ("train", "val", "test")
Ratio = tuple[float, float, float]


def parse_ratio(text: str) -> Ratio | None:
    """Read the value of `--split`: `train:val:test`, or `none` for no split at all.

    Raises:
        ValueError: if it is neither.
    """
    if text.strip().lower() == "none":
        return None
    try:
        ratio = tuple(float(number) for number in text.split(":"))
    except ValueError:
        ratio = ()
    _check_ratio(ratio, text)
    return ratio


def split_cases(source_of: Mapping[str, str], ratio: Ratio, seed: int) -> dict[str, list[str]]:
    """Divide cases at random.

    A case's place depends only on `seed` and its name, never on the order in which files were found. Sizes follow the
    largest remainder, and no part with a positive ratio is empty. Every part holds the sources in (nearly) the same
    proportion as the whole.

    Args:
        source_of: The source of every case, e.g. `{"MCUCXR_0001_0": "MCU"}`.
        ratio: Train, validation, test; any positive scale.
        seed: The same seed and the same cases give the same split.
    Returns: The sorted cases of `train`, `val` and `test`.
    Raises:
        ValueError: if the ratio is not three numbers with something to train and to validate on.
        ConversionError: if there are fewer cases than parts.
    """
    _check_ratio(ratio, ":".join(map(str, ratio)))
    strata = defaultdict(list)
    for case in sorted(source_of, key=lambda case: _random_key(case, seed)):
        strata[source_of[case]].append(case)
    sources = sorted(strata)

    sizes = dict(zip(PARTS, part_sizes(len(source_of), ratio)))
    split = {}
    for part in ("test", "val"):
        taken = largest_remainder(sizes[part], [len(strata[source]) for source in sources])
        split[part] = []
        for source, count in zip(sources, taken):
            split[part] += strata[source][:count]
            del strata[source][:count]
    split["train"] = [case for source in sources for case in strata[source]]
    return {part: sorted(split[part]) for part in PARTS}


def part_sizes(num_cases: int, ratio: Ratio) -> list[int]:
    """Sizes of train, validation and test: largest remainder, at least one case where the ratio is positive.

    Raises:
        ConversionError: if there are fewer cases than parts.
    """
    asked = sum(weight > 0 for weight in ratio)
    if num_cases < asked:
        raise ConversionError(
            f"{num_cases} labelled case(s) cannot be split {':'.join(f'{weight:g}' for weight in ratio)}: that needs "
            f"at least {asked}. Use --split none to put all of them into imagesTr."
        )
    sizes = largest_remainder(num_cases, ratio)
    for part, weight in enumerate(ratio):
        if weight > 0 and sizes[part] == 0:
            sizes[sizes.index(max(sizes))] -= 1
            sizes[part] = 1
    return sizes


def largest_remainder(total: int, weights: Sequence[float]) -> list[int]:
    """Share `total` among `weights` in whole numbers, the largest fractions rounded up; ties go to the first."""
    exact = [Fraction(weight) for weight in weights]
    whole = sum(exact)
    if whole == 0:
        return [0] * len(exact)
    quotas = [total * weight / whole for weight in exact]
    shares = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(exact)), key=lambda index: (shares[index] - quotas[index], index))
    for index in by_remainder[: total - sum(shares)]:
        shares[index] += 1
    return shares


def _random_key(case: str, seed: int) -> bytes:
    # A hash is the same on every machine and version, and a case that is added later moves few others.
    return hashlib.sha256(f"{seed}:{case}".encode()).digest()


def _check_ratio(ratio: Sequence[float], given: str) -> None:
    finite = all(0 <= weight < float("inf") for weight in ratio)
    if len(ratio) != 3 or not finite or ratio[0] <= 0 or ratio[1] <= 0:
        raise ValueError(
            f"split {given!r}: need TRAIN:VAL:TEST, three numbers of which the first two are positive, such as 7:1:2 "
            "or 8:2:0, or the word none"
        )

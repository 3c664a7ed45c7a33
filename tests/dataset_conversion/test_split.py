"""The split: sizes, seeds, strata."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunetv2_lightm.dataset_conversion._errors import ConversionError
from nnunetv2_lightm.dataset_conversion._split import largest_remainder, parse_ratio, part_sizes, split_cases

RATIO = (7, 1, 2)
cases = st.dictionaries(st.text("abc0123456789_", min_size=1, max_size=8), st.sampled_from(["MCU", "CHN"]), min_size=3)


@pytest.mark.parametrize(
    ("num_cases", "sizes"),
    [(3, [1, 1, 1]), (4, [2, 1, 1]), (5, [3, 1, 1]), (10, [7, 1, 2]), (131, [92, 13, 26]), (704, [493, 70, 141])],
)
def test_sizes_are_those_of_the_largest_remainder(num_cases, sizes):
    assert part_sizes(num_cases, RATIO) == sizes


@given(cases, st.integers(0, 2**40))
def test_parts_are_disjoint_and_complete(source_of, seed):
    split = split_cases(source_of, RATIO, seed)
    assert sorted(case for part in split.values() for case in part) == sorted(source_of)
    assert [len(split[part]) for part in ("train", "val", "test")] == part_sizes(len(source_of), RATIO)
    assert all(split.values())


@given(cases, st.integers(0, 100), st.randoms(use_true_random=False))
def test_order_of_files_does_not_matter(source_of, seed, shuffler: random.Random):
    shuffled = list(source_of.items())
    shuffler.shuffle(shuffled)
    assert split_cases(dict(shuffled), RATIO, seed) == split_cases(source_of, RATIO, seed)


@given(cases, st.integers(0, 100))
def test_every_part_holds_the_sources_in_proportion(source_of, seed):
    split = split_cases(source_of, RATIO, seed)
    for source in ("MCU", "CHN"):
        total = sum(1 for value in source_of.values() if value == source)
        for part in split.values():
            proportional = len(part) * total / len(source_of)
            assert abs(sum(1 for case in part if source_of[case] == source) - proportional) < 2


def test_strata_of_the_real_set():
    source_of = {f"MCU_{i}": "MCU" for i in range(138)} | {f"CHN_{i}": "CHN" for i in range(566)}
    split = split_cases(source_of, RATIO, 1)
    montgomery = {part: sum(case.startswith("MCU") for case in split[part]) for part in split}
    assert montgomery == {"train": 96, "val": 14, "test": 28}


def test_seed_changes_the_split():
    source_of = {f"case_{i}": "LiTS" for i in range(30)}
    splits = [split_cases(source_of, RATIO, seed) for seed in range(5)]
    assert len({tuple(split["test"]) for split in splits}) == 5


def test_split_is_the_same_on_every_machine():
    split = split_cases({f"LiTS_{i:03d}": "LiTS" for i in range(10)}, RATIO, 12345)
    assert split["val"] + split["test"] == ["LiTS_001", "LiTS_004", "LiTS_006"]


def test_no_test_part_if_the_ratio_asks_for_none():
    split = split_cases({f"case_{i}": "LiTS" for i in range(5)}, (4, 1, 0), 1)
    assert [len(split[part]) for part in ("train", "val", "test")] == [4, 1, 0]


def test_too_few_cases_are_refused_with_the_way_out():
    with pytest.raises(ConversionError, match="2 labelled .* at least 3.*--split none"):
        split_cases({"a": "x", "b": "x"}, RATIO, 1)


@given(st.integers(0, 1000), st.lists(st.integers(0, 50), min_size=1, max_size=5).filter(any))
def test_shares_are_quotas_rounded(total, weights):
    shares = largest_remainder(total, weights)
    assert sum(shares) == total
    assert all(abs(share - total * weight / sum(weights)) < 1 for share, weight in zip(shares, weights))


def test_ratio_is_read():
    assert parse_ratio("7:1:2") == (7, 1, 2)
    assert parse_ratio("0.8:0.2:0") == (0.8, 0.2, 0)
    assert parse_ratio("None") is None


@pytest.mark.parametrize("text", ["7:1", "7:1:2:3", "a:b:c", "", "7:0:3", "0:1:1", "7:1:-2", "nan:1:1", "inf:1:1"])
def test_other_ratios_are_refused(text):
    with pytest.raises(ValueError, match="TRAIN:VAL:TEST"):
        parse_ratio(text)

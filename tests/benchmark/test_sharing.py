"""Commands as words: stored without home folders, printed for the shell of this machine."""

from __future__ import annotations

import pytest

from nnunetv2_lightm import escaping
from nnunetv2_lightm.benchmark import sharing
from nnunetv2_lightm.benchmark.sharing import command_again, shared_words

BENCHMARK = ("nnUNetv2_lightm", "benchmark")


@pytest.fixture
def on_windows(monkeypatch):
    class Windows:
        name = "nt"

    for module in (escaping, sharing):
        monkeypatch.setattr(module, "os", Windows)


def test_folders_of_windows_stay_what_they_are(on_windows):
    words = (*BENCHMARK, "-o", r"D:\out\my study", "--title", "Bob's", "--calibration-of", r"C:\Users\bob\old")
    stored = shared_words(words)
    assert stored[-1] == r"~\old" and stored[:-1] == words[:-1]
    again = r"nnUNetv2_lightm benchmark -o 'D:\out\my study' --title 'Bob''s' --calibration-of ~\old"
    assert command_again(stored) == command_again(words) == again


@pytest.mark.parametrize(
    ("word", "shared"),
    [
        ("--calibration-of=/home/alice/old", ("--calibration-of", "~/old")),
        ("-o=/home/alice", ("-o", "~")),
        (r"-o=C:\Users\alice\x", ("-o", r"~\x")),
        ("/home/alice/x", ("~/x",)),
        ("--title=a=b", ("--title=a=b",)),
        ("--title=~/x", ("--title=~/x",)),
        ("gres=/home/alice/x", ("gres=/home/alice/x",)),
    ],
)
def test_home_folders_are_shortened_where_a_shell_knows_them(word, shared):
    assert shared_words(("x", word)) == ("x", *shared)
    assert shared_words(shared) == shared

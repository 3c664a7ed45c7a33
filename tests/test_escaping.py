"""Text of unknown origin in each output form reads as itself and does nothing else."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from nnunetv2_lightm.escaping import (
    escape_csv,
    escape_html,
    escape_markdown,
    escape_mathtext,
    escape_name,
    escape_shell,
    escape_terminal,
    shell_line,
    to_json,
)

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "![x](/etc/passwd)",
    "[x](javascript:alert(1))",
    "<http://evil.example>",
    "https://evil.example/a_b",
    "a|b|c",
    "`code` *bold* _em_ ~~s~~ $x$",
    "# heading\n\n- item\n\n1. item",
    "- item",
    "12. item",
    "---",
    "===",
    "&lt;b&gt; &amp;",
    "back\\slash\\",
    "\x1b[31mred\x1b]0;title\x07",
    "\x9b31m",
    "\u202egnp.exe",
    "\ud800 \udcfc",
    "=cmd|' /C calc'!A0",
    "left_lung",
    "",
]


def rendered(markdown: str) -> tuple[set[str], str]:
    """Tags and text that a browser gets."""

    class Reader(HTMLParser):
        tags, text = set(), ""

        def handle_starttag(self, tag, attrs):
            self.tags.add(tag)

        def handle_data(self, data):
            self.text += data

    reader = Reader()
    reader.tags = set()
    reader.feed(MarkdownIt("commonmark", {"linkify": False}).enable(["table", "strikethrough"]).render(markdown))
    return reader.tags, " ".join(reader.text.split())


def one_line(text: str) -> str:
    return " ".join(escape_terminal(" ".join(text.split())).split())


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_is_read_as_text(text):
    tags, shown = rendered(escape_markdown(text))
    assert tags <= {"p"} and shown == one_line(text)
    tags, shown = rendered(f"| head |\n| --- |\n| {escape_markdown(text)} |\n")
    assert tags == {"table", "thead", "tbody", "tr", "th", "td"} and shown == f"head {one_line(text)}".strip()


@given(st.text(max_size=40) | st.text("a_*`\\\\ \u00e9.-", max_size=12), st.booleans())
def test_markdown_is_read_as_text_whatever_it_is(text, inner_underscores):
    tags, shown = rendered(escape_markdown(text, inner_underscores=inner_underscores))
    assert tags <= {"p"} and shown.split() == one_line(text).split()


def test_underscores_within_words_can_stay_legible():
    assert escape_markdown("left_lung _x_ a__b", inner_underscores=False) == r"left_lung \_x\_ a\_\_b"
    assert escape_markdown("left_lung") == r"left\_lung"


@given(st.text(max_size=40))
def test_nothing_that_a_terminal_acts_on_is_left(text):
    for shown in (escape_terminal(text), escape_markdown(text), escape_html(text), escape_csv(text), to_json([text])):
        assert not set(shown) & {chr(n) for n in (*range(9), *range(11, 32), *range(127, 160), 0x202E, 0x2066)}
        shown.encode("utf-8")
    assert json.loads(to_json([text])) == [text]


@given(st.text(max_size=40))
def test_a_name_is_on_one_line(text):
    shown = escape_name(text)
    assert len(shown.splitlines()) <= 1 and "\t" not in shown
    assert escape_name(shown) == escape_terminal(shown) == shown, "escaped twice, it is the same"


@pytest.mark.parametrize("escape", [escape_name, escape_terminal])
def test_a_byte_that_is_not_utf8_is_shown_as_such(escape):
    assert escape(os.fsdecode(b"Leber\xfc") + "\ud800\x1b") == r"Leber\xfc\ud800\x1b"


@pytest.mark.parametrize("text", HOSTILE)
def test_html_is_text(text):
    reader = HTMLParser()
    found = []
    reader.handle_data = found.append
    reader.handle_starttag = lambda tag, attrs: pytest.fail(f"a tag: {tag}")
    reader.feed(escape_html(text))
    reader.close()
    assert "".join(found) == escape_terminal(text) and '"' not in escape_html(text)


@pytest.mark.parametrize("text", ["=1+1", "+1+cmd", "-1+cmd", "@SUM(A1)", "\t=1", "\n=1", "\uff1d1", "-", "+left"])
def test_a_formula_is_text_in_a_spreadsheet(text):
    assert escape_csv(text) == f"'{text}"


@pytest.mark.parametrize("cell", ["-0.5", "+1", "1e-3", "-.5", "liver", "case=1", 5, -0.5, None, ""])
def test_numbers_and_names_are_left_as_they_are(cell):
    assert escape_csv(cell) == cell
    text = io.StringIO()
    csv.writer(text).writerow([escape_csv(cell)])
    assert next(csv.reader(io.StringIO(text.getvalue()))) == ["" if cell is None else str(cell)]


def test_mathtext_is_text():
    assert escape_mathtext("$x$ \x1b") == r"\$x\$ \x1b"


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("word", [*HOSTILE, "$(touch pwned)", "`touch pwned`", "a;b", "it's", "~/x", "*", "a b", "-x"])
def test_a_shell_takes_a_word_as_it_is(word, tmp_path):
    if any("\ud800" <= character < "\udc80" for character in word):
        pytest.skip("no file name has it")
    line = escape_shell(word)
    assert escape_terminal(line) == line and "\n" not in line
    done = subprocess.run(["bash", "-c", f"printf %s {line}"], cwd=tmp_path, capture_output=True, check=True)
    assert done.stdout == word.encode("utf-8", "surrogateescape")
    assert list(tmp_path.iterdir()) == []


def test_a_line_quotes_only_what_has_to_be():
    assert shell_line("nnUNetv2_train", 4, "3d_fullres", "a b; c") == "nnUNetv2_train 4 3d_fullres 'a b; c'"


def test_json_has_no_nan():
    with pytest.raises(ValueError, match="JSON"):
        to_json([float("nan")])

"""Text of unknown origin, made harmless for the form in which it is printed.

Names of cases, classes, trainers and folders come from files that others wrote. Code that prints one uses the function
for its output form, so that the name is shown as it is and never acts as markup, a formula, a command or an escape
sequence.
"""

from __future__ import annotations

import html
import json
import os
import re
import shlex

# Control characters (escape sequences begin with one), those that turn the reading direction around, line separators
# that are not newlines, and lone surrogates: how Python holds file names that are not UTF-8, which no file takes.
_INVISIBLE = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff"
_CONTROL = re.compile(f"[{_INVISIBLE}]")
_CONTROL_OR_BREAK = re.compile(f"[{_INVISIBLE}\t\n]")
_MARKDOWN = re.compile(r"[\\`*_\[\]<>|~&#!$]")
# At the start of a text: items of lists, and the underlines of headings.
_MARKDOWN_ITEM = re.compile(r"^([-+](?=\s|$)|[-=]+$)")
_MARKDOWN_NUMBER = re.compile(r"^(\d+)(?=[.)](\s|$))")
# What GitHub makes a link of: an address without any markup around it.
_MARKDOWN_LINK = re.compile(r"(?<=\w)(:)(?=//)|(?<=\bwww)(\.)|(?<=\w)(@)(?=\w)", re.IGNORECASE)
SHOWN_CHARACTERS = 60  # of a value in a sentence
_FORMULA = re.compile(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)


def escape_terminal(text: object) -> str:
    r"""Text for a terminal: lines and tabs stay, other control characters are shown as ``\x1b``."""
    return _CONTROL.sub(lambda match: _visible(match[0]), str(text))


def escape_name(name: object) -> str:
    r"""The name of a file, folder or case in a sentence, on one line; a byte that is not UTF-8 is shown as ``\xfc``."""
    return _CONTROL_OR_BREAK.sub(lambda match: _visible(match[0]), str(name))


def short_repr(value: object) -> str:
    """A value as Python writes it, cut off after its first characters."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def escape_markdown(text: object, *, inner_underscores: bool = True) -> str:
    """Text that reads as itself, on one line, whatever it holds; also in a table cell, and inside HTML.

    Args:
        text: Text of unknown origin.
        inner_underscores: Escape underscores within words too. They are not markup (CommonMark), and text that is also
            printed to a terminal is easier to read without.
    """
    line = _MARKDOWN.sub(r"\\\g<0>", escape_terminal(" ".join(str(text).split())))
    line = _MARKDOWN_NUMBER.sub(r"\1\\", _MARKDOWN_ITEM.sub(r"\\\1", line))
    line = _MARKDOWN_LINK.sub(r"\\\g<0>", line)
    return line if inner_underscores else re.sub(r"(?<=[^\W_])\\_(?=[^\W_])", "_", line)


def escape_html(text: object) -> str:
    """Text for an element or a quoted attribute."""
    return html.escape(escape_terminal(text), quote=True)


def escape_csv(cell: object) -> object:
    """A cell of a CSV file. Text that a spreadsheet would take for a formula gets a leading ``'`` (OWASP)."""
    if not isinstance(cell, str):
        return cell
    text = escape_terminal(cell)
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def escape_mathtext(text: object) -> str:
    r"""Text in a figure: matplotlib takes what stands between two ``$`` for mathematics."""
    return escape_terminal(text).replace("$", r"\$")


def escape_shell(word: object) -> str:
    """One word of a line that a user is told to paste into a shell: ``sh``, or PowerShell on Windows."""
    text = str(word)
    if os.name == "nt":
        text = escape_terminal(text)
        return text if re.fullmatch(r"[\w@%+=:,./\\-]+", text) else "'" + text.replace("'", "''") + "'"
    if not _CONTROL.search(text) and text.isprintable():
        return shlex.quote(text)
    # bash and zsh read $'\x1b'; as it is, the character would act on the terminal that shows the line.
    return "$'" + "".join(map(_ansi_c, text)) + "'"


def shell_line(*words: object) -> str:
    """A command that a user is told to paste, each word quoted where it has to be."""
    return " ".join(map(escape_shell, words))


def to_json(content: object) -> str:
    r"""Indented JSON; characters that a terminal acts on, or that files cannot hold, are written as ``\u001b``.

    Raises: ValueError: for NaN and infinities, which JSON does not have.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n"


def _visible(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # a byte of a file name that is not UTF-8 (PEP 383)
        number -= 0xDC00
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def _ansi_c(character: str) -> str:
    """A character between ``$'`` and ``'``."""
    number = ord(character)
    if character in "\\'":
        return f"\\{character}"
    if 0xDC80 <= number <= 0xDCFF:  # a byte of a file name that is not UTF-8 (PEP 383)
        return f"\\x{number - 0xDC00:02x}"
    if character.isprintable() and not _CONTROL.match(character):
        return character
    return f"\\x{number:02x}" if number < 0x80 else f"\\U{number:08x}"

"""Text of unknown origin, as a model's labels are, made harmless for a terminal and for a table."""

from __future__ import annotations

import re

# Control characters (escape sequences begin with one), those that turn the reading direction around, line separators,
# and lone surrogates, which JSON may name and no output takes.
_ACTING = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
_FORMULA = ("=", "+", "-", "@")


def escape_terminal(text: object) -> str:
    r"""One line, in which characters on which a terminal acts are spelled ``\u001b``."""
    return _ACTING.sub(lambda found: f"\\u{ord(found[0]):04x}", str(text))


def escape_cell(text: str) -> str:
    """A cell of a table: a spreadsheet would take it for a formula if it began as one."""
    escaped = escape_terminal(text)
    return f"'{escaped}" if escaped.startswith(_FORMULA) else escaped

"""A Markdown document as one HTML file: legible on a phone, images inside, no script, nothing from the network."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping

from markdown_it import MarkdownIt
from markdown_it.token import Token

from ...escaping import escape_html

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""

_STYLE = """\
:root { color-scheme: light; }
body { margin: 0; background: #fff; color: #1a1a1a; font: 1rem/1.55 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1rem; overflow-wrap: break-word; }
h1, h2, h3 { line-height: 1.25; margin: 1.6em 0 .5em; }
h2 { border-top: 2px solid #1a1a1a; padding-top: .7em; }
a { color: #00558b; }
img { display: block; max-width: 100%; height: auto; margin: 1rem auto .25rem; }
.scroll { overflow-x: auto; margin: 1rem 0; border: 1px solid #ccc; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: .9rem; }
td { font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .65rem; border-bottom: 1px solid #ddd; white-space: nowrap; }
th { background: #eee; text-align: left; vertical-align: bottom; white-space: normal; min-width: 4.5rem; }
tr:last-child td { border-bottom: 0; }
/* The names stay in sight while the numbers are scrolled. */
.number { text-align: right; }
th:first-child, td:first-child { position: sticky; left: 0; max-width: 50vw; white-space: normal; }
td:first-child { background: #fff; }
pre { overflow-x: auto; padding: .75rem; background: #f3f3f3; border: 1px solid #ccc; font-size: .85rem; }
details { margin: 1rem 0; }
summary { cursor: pointer; padding: .5rem 0; font-weight: bold; }
@media print { .scroll { overflow: visible; } th, td { white-space: normal; } }
"""


# A second line of defence after the escaping of names: the browser runs no script and loads nothing.
_POLICY = "default-src 'none'; img-src data:; style-src 'sha256-{style_hash}'; base-uri 'none'; form-action 'none'"
# The tags and links that a report contains; anything else that looks like a tag is text.
_OWN_TAG = re.compile(
    r'<a id="comparison-\d+">|</a>|</details>\n|<details>\n<summary>Each of the \d+ classes</summary>\n'
)
_OWN_LINK = re.compile(r"#comparison-\d+")


def html_page(markdown: str, title: str, pictures: Mapping[str, bytes]) -> str:
    """Render a report.

    Args:
        markdown: CommonMark with tables. Names in it are escaped already; the few HTML tags of a report are kept.
        title: Title of the page, as text.
        pictures: The PNG files that the report made, by the path that the Markdown has. No other file is read.
    """
    # "commonmark" keeps tags, which collapse the long tables and mark where the contents lead.
    parser = MarkdownIt("commonmark", {"xhtmlOut": False}).enable("table")
    parser.add_render_rule("table_open", _table_open)
    parser.add_render_rule("table_close", _table_close)
    tokens = parser.parse(markdown)
    _sanitise(tokens, pictures)
    body = parser.renderer.render(tokens, parser.options, {})
    style = f"\n{_STYLE}\n"
    style_hash = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = _POLICY.format(style_hash=style_hash)
    return _PAGE.format(policy=policy, title=escape_html(title), style=_STYLE, body=body)


def _sanitise(tokens: Iterable[Token], pictures: Mapping[str, bytes]) -> None:
    """Keep the tags and links of a report and embed its pictures; other tags and pictures become text, other links lose
    their target."""
    for token in tokens:
        if token.type in ("html_block", "html_inline") and not _OWN_TAG.fullmatch(token.content):
            token.type = "text"
        elif token.type == "link_open" and not _OWN_LINK.fullmatch(token.attrs["href"]):
            del token.attrs["href"]
        elif token.type == "image":
            if token.attrs["src"] in pictures:
                content = base64.b64encode(pictures[token.attrs["src"]]).decode("ascii")
                token.attrs["src"] = f"data:image/png;base64,{content}"
            else:
                token.type = "text"
        elif token.type in ("th_open", "td_open") and token.attrs.pop("style", None) == "text-align:right":
            token.attrs["class"] = "number"  # the policy allows no style of an element
        _sanitise(token.children or (), pictures)


def _table_open(*_) -> str:
    # A keyboard scrolls only what it can focus.
    return '<div class="scroll" role="region" aria-label="table" tabindex="0">\n<table>\n'


def _table_close(*_) -> str:
    return "</table>\n</div>\n"

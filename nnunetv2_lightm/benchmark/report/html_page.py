"""A Markdown document as one HTML file: legible on a phone, images inside, no script, nothing from the network."""

from __future__ import annotations

import base64
import html
from pathlib import Path

from markdown_it import MarkdownIt

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
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
th:first-child, td:first-child { position: sticky; left: 0; max-width: 50vw; white-space: normal; }
td:first-child { background: #fff; }
pre { overflow-x: auto; padding: .75rem; background: #f3f3f3; border: 1px solid #ccc; font-size: .85rem; }
details { margin: 1rem 0; }
summary { cursor: pointer; padding: .5rem 0; font-weight: bold; }
@media print { .scroll { overflow: visible; } th, td { white-space: normal; } }
"""


def html_page(markdown: str, title: str, folder: Path) -> str:
    """Render a document.

    Args:
        markdown: CommonMark with tables. Names in it are escaped already: the few HTML tags that it holds are kept.
        title: Of the page, as text.
        folder: That the images in it are relative to; they are PNG files.
    """
    # "commonmark" keeps tags, which collapse the long tables and mark where the contents lead.
    parser = MarkdownIt("commonmark", {"xhtmlOut": False}).enable("table")
    parser.add_render_rule("table_open", _table_open)
    parser.add_render_rule("table_close", _table_close)
    tokens = parser.parse(markdown)
    for token in tokens:
        for child in token.children or ():
            if child.type == "image":
                content = base64.b64encode((folder / child.attrs["src"]).read_bytes()).decode("ascii")
                child.attrs["src"] = f"data:image/png;base64,{content}"
    body = parser.renderer.render(tokens, parser.options, {})
    return _PAGE.format(title=html.escape(title), style=_STYLE, body=body)


def _table_open(*_) -> str:
    # A keyboard scrolls only what it can focus.
    return '<div class="scroll" role="region" aria-label="table" tabindex="0">\n<table>\n'


def _table_close(*_) -> str:
    return "</table>\n</div>\n"

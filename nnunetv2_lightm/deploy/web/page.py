"""One HTML file from the template, the scripts of ``page/``, the compiled engine and a bundle."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from pathlib import Path
from string import Template

from ...escaping import escape_html
from ...files import whole_file
from ..bundle import pipeline_of

PAGE = Path(__file__).resolve().parent / "page"
GENERATOR = "nnUNetv2_lightm export --web"
IMPORT = re.compile(r'^import \{([^}]*)\} from "\./(\w+)\.mjs";\n', re.MULTILINE)
EXPORT = re.compile(r"^export ((?:async )?function|const|class) (\w+)", re.MULTILINE)
# What would end the element that holds a script.
MARKUP = re.compile(r"</script|<!--", re.IGNORECASE)


def write_page(bundle: bytes, engines: dict[str, bytes], out: Path) -> None:
    """Write the page of a bundle; it appears whole or not at all."""
    content = web_page(pipeline_of(bundle)["name"], bundle, engines)
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as partial:
        partial.write_text(content, encoding="utf-8", newline="")


def web_page(name: str, bundle: bytes, engines: dict[str, bytes]) -> str:
    """The page.

    Args:
        name: The model's name, which may hold any characters.
        bundle: Content of a checked bundle.
        engines: The compiled modules, ``web_engines()``.
    """
    script, style = joined("main"), (PAGE / "style.css").read_text(encoding="utf-8")
    return Template((PAGE / "page.html").read_text(encoding="utf-8")).substitute(
        policy=_policy(script, style),
        generator=GENERATOR,
        title=escape_html(name),
        style=style,
        script=script,
        worker=joined("worker"),
        bundle=_packed(bundle),
        engine=_packed(engines["engine"]),
        fused=_packed(engines["engine-fused"]),
    )


def is_page(content: bytes) -> bool:
    """Whether a file begins as a page does."""
    return content.startswith(b"<!DOCTYPE html>") and f'content="{GENERATOR}"'.encode() in content[:2048]


def joined(entry: str) -> str:
    """A module and all that it imports as one script without imports: each keeps its names to itself."""
    parts = [_scope(module, _text(module)) for module in _in_order(entry)]
    script = '"use strict";\n' + "".join(parts)
    if markup := MARKUP.search(script):
        raise ValueError(f"page/{entry}.mjs or what it imports has {markup[0]!r}, which ends a script in HTML")
    return script


def _text(module: str) -> str:
    return (PAGE / f"{module}.mjs").read_text(encoding="utf-8")


def _in_order(module: str, before: tuple[str, ...] = ()) -> list[str]:
    """Modules with each after those that it imports."""
    ordered: list[str] = []
    for imported in dict.fromkeys(match[2] for match in IMPORT.finditer(_text(module))):
        if imported in (*before, module):
            raise ValueError(f"page/{module}.mjs and page/{imported}.mjs import each other")
        ordered += [other for other in _in_order(imported, (*before, module)) if other not in ordered]
    return [*ordered, module]


def _scope(module: str, text: str) -> str:
    exported = ", ".join(match[2] for match in EXPORT.finditer(text))
    body = EXPORT.sub(r"\1 \2", IMPORT.sub(r"const {\1} = \2_module;\n", text))
    return f"const {module}_module = (() => {{\n{body}return {{ {exported} }};\n}})();\n"


def _policy(script: str, style: str) -> str:
    """What the page may do: run its own scripts, show pictures of its own, and connect to nothing."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_digest(script)}' 'wasm-unsafe-eval'",
            "worker-src blob:",
            f"style-src '{_digest(style)}'",
            "img-src blob:",
            "connect-src 'none'",
            "form-action 'none'",
            "base-uri 'none'",
        )
    )


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _packed(content: bytes) -> str:
    """Compressed, with a checksum that the browser verifies; the same for the same content."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()

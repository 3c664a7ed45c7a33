"""Settings of the documentation site; `make docs` builds it."""

from __future__ import annotations

import os
import re
from importlib.metadata import version as installed_version
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]

project = "nnunetv2-lightm"
copyright = "the nnunetv2-lightm authors, Apache-2.0"
version = release = installed_version("nnunetv2-lightm")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
# Documents link source files and results that are not pages; Sphinx copies them as downloads.
suppress_warnings = ["myst.header", "misc.highlighting_failure"]

html_theme = "furo"
html_title = f"nnunetv2-lightm {release}"
html_css_files = ["site.css"]
html_static_path = ["_static"]
html_show_sourcelink = False
html_copy_source = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
nitpicky = False

# The trainers read nnU-Net's folders when they are imported; the pages need none.
for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(variable, str(REPOSITORY / "docs" / "_build" / variable))


def _as_napoleon_reads(app, what, name, obj, options, lines) -> None:
    """Rewrite what napoleon misreads: sections on one line (`Raises: ValueError`), shapes like (batch, *spatial)."""
    text = re.sub(r"(?m)^(\s*)(Raises|Returns): (?=\S)", r"\1\2:\n\1    ", "\n".join(lines))
    lines[:] = re.sub(r"(?<=[(,\s])\*(?=[\w(])", r"\\*", text).split("\n")


def _targets(app, docname, source) -> None:
    """Reports mark their sections with `<a id="...">`, which any Markdown viewer understands; MyST needs a target."""
    source[0] = re.sub(r'(?m)^<a id="([\w-]+)"></a>$', r"(\1)=", source[0])


def _study_on_one_page(app) -> None:
    """Write the study's report as one self-contained file, to download or send."""
    from nnunetv2_lightm.benchmark.report.html_page import html_page

    study, target = REPOSITORY / "docs" / "study", Path(app.outdir, "study")
    text = (study / "report.md").read_text(encoding="utf-8")
    target.mkdir(parents=True, exist_ok=True)
    pictures = {f"figures/{file.name}": file.read_bytes() for file in (study / "figures").glob("*.png")}
    page = html_page(text, text.partition("\n")[0].lstrip("# "), pictures)
    (target / "report_on_one_page.html").write_text(page, encoding="utf-8")


def setup(app) -> None:
    app.connect("builder-inited", _study_on_one_page)
    app.connect("autodoc-process-docstring", _as_napoleon_reads, priority=100)
    app.connect("source-read", _targets)

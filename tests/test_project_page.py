"""The page of a distribution on the package index: where its links lead."""

from __future__ import annotations

import pytest

import project_page

REPOSITORY = "https://example.org/lightm"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "README.md").write_text("[a](docs/a.md)", encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.0"\n', encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[a](docs/a.md)", "[a](R/blob/v1/docs/a.md)"),
        ("[two\nlines](docs/a.md#b)", "[two\nlines](R/blob/v1/docs/a.md#b)"),
        ("[`code`](src/a.h)", "[`code`](R/blob/v1/src/a.h)"),
        ("![p](docs/a.png)", "![p](R/raw/v1/docs/a.png)"),
        ("[![p](a.png)](a.md)", "[![p](R/raw/v1/a.png)](R/blob/v1/a.md)"),
        ("[a](#scores)", "[a](R/blob/v1/README.md#scores)"),
        ("[a](https://b.org/c) [d](mailto:e@f.org)", "[a](https://b.org/c) [d](mailto:e@f.org)"),
        ("```python\na[0](x)\n```\n[a](b)", "```python\na[0](x)\n```\n[a](R/blob/v1/b)"),
    ],
)
def test_relative_targets_become_those_of_the_repository(before, after):
    text = project_page.with_absolute_targets(before, REPOSITORY, "v1")
    assert text == after.replace("R/", f"{REPOSITORY}/")
    assert project_page.relative_targets(text) == []
    assert bool(project_page.relative_targets(before)) == (before != after)


def test_paths_of_a_folder_within_the_repository():
    text = project_page.with_absolute_targets("[a](../docs/a.md) [b](src/b.h) [c](#d)", REPOSITORY, "v1", "runtime")
    at = f"{REPOSITORY}/blob/v1"
    assert text == f"[a]({at}/docs/a.md) [b]({at}/runtime/src/b.h) [c]({at}/runtime/README.md#d)"


def test_without_an_address_the_readme_stays_as_it_is(folder):
    assert project_page.long_description(folder) == "[a](docs/a.md)"


def test_the_address_and_the_version_come_from_pyproject(folder):
    with (folder / "pyproject.toml").open("a") as file:
        file.write(f'\n[project.urls]\nPaper = "https://c.org"\nRepository = "{REPOSITORY}/"\n')
    assert project_page.long_description(folder) == f"[a]({REPOSITORY}/blob/v1.2.0/docs/a.md)"


@pytest.mark.parametrize("place", [".", "runtime"])
def test_what_the_readmes_link_to_is_there(repository, place):
    text = (repository / place / "README.md").read_text(encoding="utf-8")
    paths = [target.partition("#")[0] for target in project_page.relative_targets(text)]
    assert paths and [path for path in paths if not (repository / place / path).exists()] == []

"""What the package index would show, before it is shown."""

from __future__ import annotations

import zipfile

import pytest

from project_page import relative_targets


def wheel(dist, name, text):
    with zipfile.ZipFile(dist / f"{name}-1.2.0-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}-1.2.0.dist-info/METADATA", f"Metadata-Version: 2.4\nName: {name}\n\n{text}")


def test_links_that_lead_nowhere_are_refused(tmp_path, monkeypatch, capsys):
    from release import pages

    monkeypatch.setattr(pages, "DIST", tmp_path)
    wheel(tmp_path, "good", "# Good\n\n[a](https://example.org/a)")
    assert pages.main() == 0
    wheel(tmp_path, "bad", "# Bad\n\n![a](docs/a.png) and [b](b.md)")
    assert pages.main() == 1
    said = capsys.readouterr().err
    assert "the page of bad would have 2 links that lead nowhere" in said and "docs/a.png" in said
    assert "Repository" in said and "good" not in said


def test_no_wheels_are_no_success(tmp_path):
    from release import pages

    with pytest.raises(FileNotFoundError, match="make wheels"):
        pages.built(tmp_path)


def test_the_pages_of_both_distributions_are_looked_at_before_anything_is_built(repository, monkeypatch):
    from release import release

    monkeypatch.setattr(release, "faults_of_version", lambda root: [])
    monkeypatch.setattr(release, "faults_of_repository", lambda root: [])
    texts = release.pages.to_be_built(repository)
    assert list(texts) == ["nnunetv2-lightm", "lightm-runtime"]
    faults = release.all_faults(repository)
    assert [name for name in texts if any(name in fault for fault in faults)] == [
        name for name, text in texts.items() if relative_targets(text)
    ]

"""Files that are given to the page: which of them are one image, odd headers, and when they come."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from .conftest import assert_same, natively_in_file
from .opened_page import DONE, MOST_MS, WRONG, OpenedPage

pytestmark = pytest.mark.slow

PIXDIM_AT, SLOPE_AT, UNITS_AT, QFORM_AT, DIM_AT, ROWS_AT = 76, 112, 123, 252, 40, 280


def test_channels_are_those_of_one_image(chromium, page_of, bundle_of, tmp_path):
    first, second = bundle_of("channels")[1]

    def named(*names: str) -> list[Path]:
        for name, source in zip(names, (first, second, second)):
            shutil.copyfile(source, tmp_path / name)
        return [tmp_path / name for name in names]

    with OpenedPage(chromium, page_of("channels")) as page:
        for names, said in (
            (("A_0000.nii.gz", "B_0000.nii.gz"), "are of 2 images, A and B"),
            (("A_0000.nii.gz", "B_0001.nii.gz"), "are of 2 images, A and B"),
            (("A_0000.nii.gz", "a_0001.nii.gz"), "are of 2 images, A and a"),
            (("A_0000.nii.gz", "A_0002.nii.gz"), "_0001 (channel 1) is missing"),
            (("A_0001.nii.gz", "A_0002.nii.gz"), "_0000 (channel 0) is missing"),
            (("A_0000.nii.gz", "plain.nii.gz"), "plain.nii.gz has no number of a channel"),
            (("A_0000.nii.gz", "A_0001.nii.gz", "A_0002.nii.gz"), "3 files for 2 channels"),
            (("a.nii.gz", "b.nii.gz", "c.nii.gz"), "3 files for 2 channels"),
        ):
            refused = page.refused(named(*names))
            assert said in refused and "_0000 (channel 0), _0001 (channel 1), or one with all" in refused
        for names, shown in (
            (("A_0001.nii.gz", "A_0000.nii.gz"), "channel 0 = A_0000.nii.gz, channel 1 = A_0001.nii.gz"),
            (("x.nii.gz", "y.nii.gz"), "channel 0 = x.nii.gz, channel 1 = y.nii.gz"),
        ):
            page.segment(named(*names))
            assert page.page.inner_text("#sources") == shown
    with OpenedPage(chromium, page_of("volume")) as page:
        page.segment(bundle_of("volume")[1])
        assert page.page.is_hidden("#sources")


@pytest.fixture
def headers(bundle_of, tmp_path):
    """Writes the volume with bytes of its header changed: {address: (format, *values)}."""
    (source,) = bundle_of("volume")[1]
    plain = tmp_path / "plain.nii"
    volume = nib.load(source)
    nib.save(nib.Nifti1Image(np.asarray(volume.dataobj), volume.affine), plain)

    def write(name: str, changes: dict[int, tuple]) -> Path:
        content = bytearray(plain.read_bytes())
        for address, (form, *values) in changes.items():
            struct.pack_into(f"<{form}", content, address, *values)
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


NO_FORM, SFORM_ALONE = {QFORM_AT: ("2h", 0, 0)}, {QFORM_AT: ("2h", 0, 1)}


def test_odd_headers_are_read_as_by_the_engine(chromium, page_of, natively, headers, tmp_path):
    forms = {
        "intercept alone": {SLOPE_AT: ("2f", 0.0, 500.0)},
        "no number as slope": {SLOPE_AT: ("2f", float("nan"), 500.0)},
        "no number as intercept": {SLOPE_AT: ("2f", 2.0, float("nan"))},
        "negative size": {PIXDIM_AT + 4: ("f", -0.9), **NO_FORM},
        "negative size with a qform": {PIXDIM_AT + 8: ("f", -1.2), QFORM_AT: ("2h", 1, 0)},
        "negative size with an sform": {PIXDIM_AT + 12: ("f", -1.5), **SFORM_ALONE},
    }
    with OpenedPage(chromium, page_of("volume")) as page:
        for name, changes in forms.items():
            path = headers(f"{name}.nii", changes)
            page.segment([path])
            assert_same(page.saved("nifti", tmp_path / "out"), natively_in_file(natively, path))


def test_the_unit_of_a_header_is_minded_as_by_the_engine(chromium, page_of, natively, headers, tmp_path):
    """nnU-Net's nibabel readers take micrometres for mm; SimpleITK's see an image without a voxel."""
    path = headers("micrometres.nii", {UNITS_AT: ("B", 3)})
    with OpenedPage(chromium, page_of("nibabel")) as page:
        page.segment([path])
        assert_same(page.saved("nifti", tmp_path / "out"), natively("nibabel", [path]))
    with OpenedPage(chromium, page_of("volume")) as page:
        assert "an axis would have no voxel" in page.refused([path])


def test_headers_that_the_engine_refuses(chromium, page_of, natively, headers):
    x, y, z = nib.load(headers("plain.nii", {})).shape
    forms = {
        "sheared": ({ROWS_AT + 4: ("f", 0.4), **SFORM_ALONE}, "axes that are not at right angles"),
        "no direction": ({ROWS_AT: ("12f", *[0.0] * 12), **SFORM_ALONE}, "axes that are not at right angles"),
        "five": ({DIM_AT: ("8h", 5, x, y, z // 2, 1, 2, 1, 1)}, f"has 5 dimensions, {x} x {y} x {z // 2} x 1 x 2"),
        "metres": ({PIXDIM_AT + 4: ("3f", 900, 1200, 1500)}, "too large for the engine: at its spacing, 1500 x 1200 x"),
    }
    with OpenedPage(chromium, page_of("volume")) as page:
        for name, (changes, said) in forms.items():
            path = headers(f"{name}.nii", changes)
            assert said in page.refused([path])
            with pytest.raises(Exception) as caught:
                natively("volume", [path])
            assert type(caught.value).__name__ in ("ImageError", "EngineError")


def test_a_picture_that_is_dropped_while_the_model_loads(chromium, page_of, bundle_of):
    """It is taken when the page is ready."""
    wait = """
        const compile = WebAssembly.compile;
        WebAssembly.compile = (bytes) => new Promise((resolve) => (window.goOn = () => resolve(compile(bytes))));
    """
    with OpenedPage(chromium, page_of("picture"), script=wait, ready=False) as opened:
        opened.page.wait_for_function("() => window.goOn")
        opened.drop(bundle_of("picture")[1][0])
        assert opened.status.startswith("Loading") and not opened.page.query_selector(WRONG)
        opened.page.evaluate("() => window.goOn()")
        opened.page.wait_for_selector(f"{DONE}, {WRONG}", timeout=MOST_MS)
        assert "segmented in" in opened.status and opened.errors == []


def test_what_came_after_chromium_97_is_not_needed(chromium, page_of, bundle_of):
    """docs/deploy.md names it: the first that takes the page's policy for WebAssembly."""
    older = "delete AbortSignal.prototype.throwIfAborted; delete window.structuredClone; delete Object.groupBy;"
    with OpenedPage(chromium, page_of("picture"), script=older) as page:
        page.segment(bundle_of("picture")[1])

"""How the page shows an image: windows of channels, letters at the edges, the voxel that is read out."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from .opened_page import OpenedPage

pytestmark = pytest.mark.slow


def test_a_picture_is_read_out_by_keyboard(chromium, page_of, bundle_of):
    with OpenedPage(chromium, page_of("picture")) as opened:
        page = opened.page
        opened.segment(bundle_of("picture")[1])
        for _ in range(10):
            page.keyboard.press("Tab")
            if page.evaluate("() => document.activeElement.tagName") == "CANVAS":
                break
        assert "arrow keys" in page.evaluate("() => document.activeElement.ariaLabel")

        def read_out() -> list[int]:
            page.wait_for_timeout(200)
            return [int(part.strip(",")) for part in page.inner_text("#voxel").split(":")[0].split()[1:]]

        x, y = read_out()
        for key, expected in (
            ("ArrowRight", [x + 1, y]),
            ("ArrowDown", [x + 1, y + 1]),
            ("ArrowLeft", [x, y + 1]),
            ("ArrowUp", [x, y]),
        ):
            page.keyboard.press(key)
            assert read_out() == expected
        for _ in range(60):
            page.keyboard.press("ArrowLeft")
        assert read_out() == [0, y]


def test_each_channel_has_a_window_of_its_own(chromium, page_of, bundle_of, tmp_path):
    """The second one is smaller by four orders, as an ADC map is next to a CT."""
    files = [tmp_path / f"case_{i:04d}.nii.gz" for i in range(2)]
    for source, path, factor in zip(bundle_of("channels")[1], files, (1.0, 1e-4)):
        sitk.WriteImage(sitk.ReadImage(str(source)) * factor, str(path))
    with OpenedPage(chromium, page_of("channels")) as opened:
        page = opened.page
        opened.segment(files)

        def chosen(channel: int) -> list[float]:
            page.select_option("#channel", str(channel))
            return page.evaluate("() => ['level', 'width'].map((id) => Number(document.getElementById(id).value))")

        def greys() -> int:
            page.evaluate("() => { opacity.value = 0; opacity.dispatchEvent(new Event('input')); }")
            page.wait_for_timeout(200)
            return page.evaluate(
                """() => {
                    const canvas = document.querySelector("canvas"), { width, height } = canvas;
                    const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
                    return new Set(data.filter((_, i) => i % 4 === 0)).size;
                }"""
            )

        first, second = chosen(0), chosen(1)
        assert greys() > 50
        np.testing.assert_allclose(np.array(second) / first, 1e-4, rtol=0.2)
        page.evaluate("() => { level.value = level.min; level.dispatchEvent(new Event('input')); }")
        moved = chosen(1)
        assert moved[0] < second[0] and chosen(0) == first and greys() > 50 and chosen(1) == moved


def test_edges_have_no_letters_where_the_header_contradicts_itself(chromium, page_of, bundle_of, tmp_path):
    """The reader of this model turns nothing, so that the image is segmented; left and right would be a guess."""
    (source,) = bundle_of("nibabel")[1]
    volume = nib.load(source)
    form = nib.Nifti1Image(np.asarray(volume.dataobj), volume.affine)
    form.set_sform(np.diag([-1.0, 1.0, 1.0, 1.0]) @ volume.affine, 2)
    form.set_qform(volume.affine, 1)
    nib.save(form, tmp_path / "two.nii.gz")
    letters = "() => [...document.querySelectorAll('.edge')].map((edge) => edge.textContent)"
    with OpenedPage(chromium, page_of("nibabel")) as page:
        page.segment([source])
        assert page.page.evaluate(letters) == ["R", "A", "R", "S", "A", "S"] and page.status.endswith(" s.")
        page.segment([tmp_path / "two.nii.gz"])
        assert page.page.evaluate(letters) == [""] * 6
        assert "the edges carry no letters: its header places it in two ways, qform and sform" in page.status

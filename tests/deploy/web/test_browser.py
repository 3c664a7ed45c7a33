"""The page in a real browser, opened from disk: labels as from the engine for this machine, whatever is given to it."""

from __future__ import annotations

import http.server
import struct
import threading
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from nnunetv2_lightm.deploy.web.page import write_page

from .conftest import HOSTILE, MODELS, assert_same, natively_in_file
from .opened_page import MOST_MS, OpenedPage

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", MODELS)
def test_labels_are_those_of_the_engine(kind, chromium, page_of, bundle_of, natively, tmp_path):
    _, files = bundle_of(kind)
    with OpenedPage(chromium, page_of(kind)) as page:
        page.segment(files)
        expected = natively_in_file(natively, files[0]) if kind == "volume" else natively(kind, files)
        assert_same(page.saved("nifti", tmp_path), expected)
        rows = page.table()
        if expected.shape[0] == 1:
            picture = page.saved("png", tmp_path)
            assert np.array_equal(np.asarray(Image.open(picture)), expected[0])
        if kind == "channels":
            whole = int((expected > 0).sum())
            assert rows[0] == ["whole", f"{whole:,}", f"{whole / 1000:.3f} ml"]
        if kind == "volume":
            assert rows[1][0] == HOSTILE and not page.page.query_selector("main img")
        width, height = Image.open(page.saved("picture", tmp_path)).size
        assert width >= expected.shape[2] and height >= expected.shape[1]
        assert page.requests == []


def interlaced(pixels: np.ndarray) -> bytes:
    """An 8-bit grey PNG in the seven passes of Adam7, which Pillow reads and does not write."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    parts = [pixels[y::down, x::right] for y, x, down, right in passes]
    rows = b"".join(b"\0" + row.tobytes() for part in parts for row in part if row.size)
    header = struct.pack(">2I5B", *pixels.shape[::-1], 8, 0, 0, 0, 1)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    packed = [struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def pictures(folder: Path, source: Path) -> dict[str, Path]:
    """The same picture in other forms."""
    image = Image.open(source)
    wide = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    for name, form in (("deep.png", wide), ("few.png", image.point(lambda value: 255 * (value > 127), "1"))):
        form.save(folder / name)
    (folder / "passes.png").write_bytes(interlaced(np.asarray(image)))
    image.save(folder / "lossy.jpg", quality=85)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned: other readers do not
    image.save(folder / "turned.jpg", quality=85, exif=exif)
    return {path.name: path for path in sorted(folder.iterdir())}


def test_forms_of_a_picture(chromium, page_of, bundle_of, natively, tmp_path):
    forms = pictures(tmp_path, bundle_of("picture")[1][0])
    with OpenedPage(chromium, page_of("picture")) as page:
        for path in forms.values():
            page.segment([path])
            found = np.asarray(Image.open(page.saved("png", tmp_path / "out")))
            assert (found == natively("picture", [path])[0]).mean() > 0.999, path.name


def test_forms_of_a_volume(chromium, page_of, bundle_of, natively, tmp_path):
    """Types, byte orders, scaled values, and directions that the reader of the training turns to RAS."""
    (source,) = bundle_of("volume")[1]
    image = sitk.ReadImage(str(source))
    forms = []
    for orientation in ("RAI", "PIR", "LPS"):
        forms.append(tmp_path / f"{orientation}.nii.gz")
        sitk.WriteImage(sitk.DICOMOrient(image, orientation), str(forms[-1]))
    volume = nib.load(forms[1])
    values = np.asarray(volume.dataobj)
    scaled = nib.Nifti1Image(np.round(values * 4).astype(np.int16), volume.affine)
    scaled.header.set_slope_inter(0.25, 0)
    swapped = nib.Nifti1Image(values.astype(">f8"), volume.affine, nib.Nifti1Header(endianness=">"))
    swapped.set_data_dtype(np.float64)
    for name, form in (("scaled.nii", scaled), ("swapped.nii", swapped)):
        nib.save(form, tmp_path / name)
        forms.append(tmp_path / name)
    with OpenedPage(chromium, page_of("volume")) as page:
        for path in forms:
            page.segment([path])
            found = page.saved("nifti", tmp_path / "out")
            assert_same(found, natively_in_file(natively, path))
            assert np.allclose(nib.load(found).affine, nib.load(path).affine, atol=1e-4), path.name


def test_a_picture_that_is_dropped(chromium, page_of, bundle_of):
    (path,) = bundle_of("picture")[1]
    with OpenedPage(chromium, page_of("picture")) as opened:
        opened.drop(path)
        opened.page.wait_for_selector("#save:not([hidden])", timeout=MOST_MS)
        assert "segmented in" in opened.status


def test_wrong_files_are_refused_kindly(chromium, page_of, bundle_of, tmp_path):
    (picture,), (volume,) = bundle_of("picture")[1], bundle_of("volume")[1]

    def wrong(name: str, content: bytes) -> list[Path]:
        (tmp_path / name).write_bytes(content)
        return [tmp_path / name]

    png, compressed = picture.read_bytes(), volume.read_bytes()
    plain = tmp_path / "plain.nii"
    sitk.WriteImage(sitk.ReadImage(str(volume)), str(plain))
    nan = np.asarray(nib.load(plain).dataobj).copy()
    nan[0, 0, 0] = np.nan
    nib.save(nib.Nifti1Image(nan, np.eye(4)), tmp_path / "nan.nii")
    Image.open(picture).convert("RGB").save(tmp_path / "rgb.png")
    two = nib.load(plain).affine.copy()
    contradicting = nib.Nifti1Image(np.asarray(nib.load(plain).dataobj), two)
    contradicting.set_sform(two, 2)
    contradicting.set_qform(np.diag([1.0, -1.0, 1.0, 1.0])[[1, 0, 2, 3]], 2)
    nib.save(contradicting, tmp_path / "two.nii")
    with OpenedPage(chromium, page_of("picture")) as page:
        for files, said in (
            (wrong("notes.txt", b"no image"), "notes.txt: is not an image that this page reads"),
            (wrong("empty.png", b""), "is not an image"),
            (wrong("slice.dcm", bytes(128) + b"DICM" + bytes(200)), "is DICOM"),
            (wrong("short.png", png[:-30]), "short.png: is incomplete"),
            (wrong("changed.png", png[:60] + bytes([png[60] ^ 1]) + png[61:]), "is damaged: the checksum"),
            (wrong("short.jpg", b"\xff\xd8\xff\xe0\x00\x10JFIF"), "damaged or incomplete"),
            ([tmp_path / "rgb.png"], "3 channels; the model takes 1: channel 0"),
            ([volume], "3 dimensions; the model was trained on 2D images"),
            ([picture, tmp_path / "rgb.png"], "takes one image at a time"),
        ):
            assert said in page.refused(files), files
        page.segment([picture])
    with OpenedPage(chromium, page_of("volume")) as page:
        for files, said in (
            (wrong("short.nii.gz", compressed[:-40]), "short.nii.gz: is damaged or incomplete"),
            (wrong("short.nii", plain.read_bytes()[:-1000]), "is incomplete: 1000 bytes of its voxels are missing"),
            ([tmp_path / "nan.nii"], "nan.nii: has NaN or infinite voxels"),
            ([tmp_path / "two.nii"], "qform and sform, that contradict"),
            ([picture], "is a 2D image; the model was trained on volumes"),
        ):
            assert said in page.refused(files), files
    with OpenedPage(chromium, page_of("channels")) as page:
        first, second = bundle_of("channels")[1]
        moved = sitk.ReadImage(str(second))
        moved.SetOrigin((50.0, 0.0, 0.0))
        sitk.WriteImage(moved, str(tmp_path / "case_0001.nii.gz"))
        assert "1 channel; the model takes 2: channel 0, channel 1" in page.refused([first])
        assert "differ in size or place" in page.refused([first, tmp_path / "case_0001.nii.gz"])


def test_cancelled_and_begun_anew(chromium, page_of, bundle_of, tmp_path):
    large = tmp_path / "large.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (700, 700), np.uint8)).save(large)
    with OpenedPage(chromium, page_of("picture")) as page:
        for cancel in (lambda: page.page.click("#cancel"), lambda: page.page.keyboard.press("Escape")):
            page.give([large])
            page.page.wait_for_selector("#progress[value]", timeout=MOST_MS)
            cancel()
            page.page.wait_for_selector("#work", state="hidden", timeout=MOST_MS)
            assert page.status.startswith("Cancelled") and page.page.is_hidden("#save")
            assert page.is_idle()
        # Another image takes the place of one in work.
        page.give([large])
        page.page.wait_for_selector("#progress[value]", timeout=MOST_MS)
        page.segment(bundle_of("picture")[1])
        page.page.wait_for_selector("#save:not([hidden])", timeout=MOST_MS)
        assert "case_0000.png: segmented" in page.status


def test_memory_of_images_in_turn_is_bounded(chromium, page_of, bundle_of, tmp_path):
    other = tmp_path / "other.png"
    Image.open(bundle_of("picture")[1][0]).transpose(Image.Transpose.ROTATE_180).save(other)
    with OpenedPage(chromium, page_of("picture")) as page:
        session = page.context.browser.new_browser_cdp_session()

        def megabytes() -> float:
            processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
            ids = [process["id"] for process in processes if process["type"] == "renderer"]
            pages = sum(int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in ids)
            return pages * 4096 / 1e6

        used, labels = [], []
        for _ in range(3):
            for path in (bundle_of("picture")[1][0], other):
                page.segment([path])
                assert page.is_idle()
            labels.append(np.asarray(Image.open(page.saved("png", tmp_path / "out"))))
            used.append(megabytes())
        assert np.array_equal(labels[0], labels[2])
        assert used[2] < used[0] + 100, used  # one round takes some 200


def test_the_number_of_cores_changes_nothing(chromium, page_of, bundle_of, tmp_path):
    found = []
    for cores in (1, 3):
        with OpenedPage(chromium, page_of("channels"), cores=cores) as page:
            page.segment(bundle_of("channels")[1])
            found.append(sitk.GetArrayFromImage(sitk.ReadImage(str(page.saved("nifti", tmp_path)))))
    assert np.array_equal(*found)


def test_nothing_can_leave_the_page(chromium, page_of):
    heard = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            heard.append(self.path)
            self.send_error(404)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        with OpenedPage(chromium, page_of("picture")) as page:
            outcome = page.page.evaluate(
                """async (address) => {
                    const image = new Image();
                    const shown = new Promise((resolve) => {
                        image.onload = image.onerror = (event) => resolve(event.type);
                    });
                    image.src = `${address}image`;
                    const fetched = await fetch(`${address}fetch`).then(() => "sent", () => "refused");
                    const beacon = navigator.sendBeacon(`${address}beacon`, "x");
                    return [await shown, fetched];
                }""",
                address,
            )
            assert outcome == ["error", "refused"]
            assert "Nothing leaves this machine" in page.page.inner_text("header")
            assert "research use only" in page.page.inner_text("header")
        server.shutdown()
    assert heard == []


def test_by_keyboard_on_a_phone(chromium, page_of, bundle_of):
    with OpenedPage(chromium, page_of("volume"), width=390) as opened:
        page = opened.page
        page.keyboard.press("Tab")
        assert page.evaluate("() => document.activeElement.id") == "files"
        opened.segment(bundle_of("volume")[1])
        names = []
        for _ in range(12):
            page.keyboard.press("Tab")
            names.append(page.evaluate("() => document.activeElement.ariaLabel || document.activeElement.id"))
            if names[-1] == "Axial slice":
                before = page.inner_text("#voxel")
                page.keyboard.press("ArrowUp")
                page.wait_for_timeout(200)
                assert page.inner_text("#voxel") != before
        assert {"Axial slice", "Coronal slice", "Sagittal slice", "level", "width", "opacity", "nifti"} <= set(names)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("name", ["engine", "engine-fused"])
def test_either_engine_segments(name, chromium, bundle_of, engines, natively, tmp_path):
    bundle, files = bundle_of("picture")
    others = {other: b"for a browser to come" for other in engines if other != name}
    write_page(bundle.read_bytes(), engines | others, tmp_path / "page.html")
    with OpenedPage(chromium, tmp_path / "page.html") as page:
        page.segment(files)
        assert_same(page.saved("nifti", tmp_path), natively("picture", files))

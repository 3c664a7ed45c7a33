"""TIFF and BMP: only whole files are accepted, even if the reader returns what it could read."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from nnunetv2_lightm.images.check import check_image, check_label
from nnunetv2_lightm.images.faults import ImageFault

RANDOM = np.random.default_rng(0)
VOLUME = RANDOM.normal(size=(6, 40, 50)).astype(np.float32)
PIXELS = RANDOM.integers(0, 255, (40, 50)).astype(np.uint8)
COMPRESSION = pytest.mark.parametrize("compression", [None, "zlib", "lzw"])


def write_tiff(path, values=VOLUME, **options):
    tifffile.imwrite(path, values, rowsperstrip=8, **options)
    return path


@COMPRESSION
def test_whole_tiff_files_are_taken(tmp_path, compression):
    facts = check_image(write_tiff(tmp_path / "a.tif", compression=compression))
    assert (facts.shape, facts.channels) == ((6, 40, 50), 1)
    rgb = write_tiff(tmp_path / "b.tiff", np.stack([PIXELS] * 3, -1), photometric="rgb", compression=compression)
    assert (check_image(rgb).shape, check_image(rgb).channels) == ((40, 50), 3)
    assert check_label(write_tiff(tmp_path / "c.tif", PIXELS // 128)).values == (0, 1)
    with pytest.raises(ImageFault, match="3 channels"):
        check_label(rgb)
    planes = np.stack([PIXELS] * 3)
    planar = write_tiff(tmp_path / "d.tif", planes, photometric="rgb", planarconfig="separate", compression=compression)
    assert (check_image(planar).shape, check_image(planar).channels) == ((40, 50), 3)


@COMPRESSION
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_tiff_files_are_refused(tmp_path, compression, share):
    """tifffile reads the first page of some of these, and logs that there should be more."""
    path = write_tiff(tmp_path / "a.tif", compression=compression)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ImageFault, match="a.tif (cannot be read as TIFF|is damaged or truncated)"):
        check_image(path)


@pytest.mark.parametrize(
    ("values", "words"), [(np.nan, "1 NaN or infinite"), (np.inf, "1 NaN or infinite"), (0.9999999, "0.9999999")]
)
def test_values_of_tiff_files(tmp_path, values, words):
    volume = np.ones((6, 40, 50), np.float64)
    volume[1, 2, 3] = values
    with pytest.raises(ImageFault, match=words):
        check_label(write_tiff(tmp_path / "a.tif", volume))


def test_a_file_of_two_images_is_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(PIXELS)
        file.write(PIXELS[:20])
    with pytest.raises(ImageFault, match="holds 2 images"):
        check_image(tmp_path / "a.tif")


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("RGB", 3), ("P", 1)])
def test_bmp_files(tmp_path, mode, channels):
    path = tmp_path / "a.bmp"
    Image.fromarray(PIXELS).convert(mode).save(path)
    assert (check_image(path).shape, check_image(path).channels) == ((40, 50), channels)
    data = path.read_bytes()
    for length in (10, 100, len(data) - 60):
        path.write_bytes(data[:length])
        with pytest.raises(ImageFault, match="a.bmp (cannot be read as BMP|is truncated)"):
            check_image(path)


def test_other_formats_by_these_names(tmp_path):
    for name in ("a.bmp", "a.tif"):
        Image.fromarray(PIXELS).save(tmp_path / name, format="PNG")
        with pytest.raises(ImageFault, match="cannot be read as"):
            check_image(tmp_path / name)
    assert check_label(write_tiff(tmp_path / "a.tif", np.zeros((4, 5), np.uint8))).values == (0,)

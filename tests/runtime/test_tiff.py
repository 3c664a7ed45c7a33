"""TIFF files that are damaged: a sentence for each, whatever tifffile and its codecs make of them."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from functools import partial

import numpy as np
import pytest
import tifffile
from lightm_runtime import ImageError, tiff
from lightm_runtime.formats import is_flat, read_image

VOLUME = np.random.default_rng(0).integers(0, 4000, (3, 12, 13)).astype(np.uint16)
FORMS = {
    "bare": {},
    "deflate": {"compression": "zlib"},
    "deflate, predicted": {"compression": "zlib", "predictor": True},
    "LZMA": {"compression": "lzma"},
    "ImageJ": {"imagej": True},
}


def write(path, values=VOLUME, **options):
    tifffile.imwrite(path, values, photometric="minisblack", **options)
    return path


def test_a_tiff_that_needs_imagecodecs_says_so(tmp_path):
    """tifffile reads deflate without it."""
    write(tmp_path / "a.tif", compression="lzw")
    write(tmp_path / "b.tif", compression="zlib", predictor=True)
    code = (
        "import sys; sys.modules['imagecodecs'] = None\n"
        "from lightm_runtime.images import read_case\nfrom pathlib import Path\n"
        "print(read_case([Path(sys.argv[1])], ['x'], 'SimpleITKIO').voxels.sum())"
    )
    run = partial(subprocess.run, capture_output=True, text=True, check=False)
    refused, read = (run([sys.executable, "-c", code, str(tmp_path / name)]) for name in ("a.tif", "b.tif"))
    assert refused.returncode and "a.tif: is compressed" in refused.stderr
    assert "pip install imagecodecs" in refused.stderr
    assert float(read.stdout) == VOLUME.sum(), read.stderr


# Of every place in a file with any of these bits another: read, or refused by name.
SCAN = """
import sys
from contextlib import suppress
from pathlib import Path
if sys.argv[2] == "without": sys.modules["imagecodecs"] = None
from lightm_runtime import ImageError
from lightm_runtime.formats import is_flat, read_image
path = Path(sys.argv[1])
data, refused = path.read_bytes(), 0
read_image(path)
for place in range(len(data)):
    path.write_bytes(data[:place] + bytes([data[place] ^ (1, 32, 128)[place % 3]]) + data[place + 1 :])
    is_flat(path)
    with suppress(MemoryError):
        try:
            read_image(path)
        except ImageError as error:
            assert str(path) in str(error), error
            refused += 1
print(refused)
"""


@pytest.mark.parametrize("codecs", ["with", "without"])
@pytest.mark.parametrize("form", FORMS)
def test_damage_anywhere_names_the_file(form, codecs, tmp_path):
    """Without imagecodecs it is Python's zlib and lzma that raise, with errors of their own."""
    path = write(tmp_path / "a.tif", VOLUME[:2, :8, :9], **FORMS[form])
    command = [sys.executable, "-c", SCAN, str(path), codecs]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) > 0


def test_whatever_a_codec_raises_is_an_image_error(tmp_path, monkeypatch):
    path = write(tmp_path / "a.tif")

    def fail(error, *arguments, **options):
        raise error

    for error in (AssertionError(), KeyError("x"), StopIteration()):
        monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", partial(fail, error))
        with pytest.raises(ImageError, match=f"a.tif: cannot be read as TIFF: {str(error) or type(error).__name__}"):
            read_image(path)
    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", partial(fail, MemoryError()))
    with pytest.raises(MemoryError):
        read_image(path)


def test_a_header_that_asks_for_millions_of_steps_is_refused_before_a_pixel_is_read(tmp_path, monkeypatch):
    """They would take 12 s and 1.6 GB."""
    path = write(tmp_path / "a.tif", VOLUME[0], compression="zlib")
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags["ImageLength"].overwrite(8388628)
    monkeypatch.delattr(tifffile.TiffPageSeries, "asarray")
    with pytest.raises(ImageError, match="a.tif: is truncated or damaged: .*StripByteCounts"):
        read_image(path)


def test_complaints_are_of_the_file_that_the_thread_reads(tmp_path):
    """tifffile has one log for all."""
    path = write(tmp_path / "a.tif", compression="zlib")
    complain = threading.Thread(target=lambda: logging.getLogger("tifffile").error("another file is damaged"))
    with tiff._series_of(path) as series:
        complain.start()
        complain.join()
        np.testing.assert_array_equal(series.asarray(), VOLUME)
    with pytest.raises(ImageError, match="a.tif: is truncated or damaged: this"), tiff._series_of(path):
        logging.getLogger("tifffile").error("this file is damaged")


def test_only_the_damaged_one_of_files_that_are_read_at_once_is_refused(tmp_path):
    files = [write(tmp_path / f"{name}.tif", np.tile(VOLUME, (1, 9, 9)), compression="zlib") for name in "abcdefgh"]
    files[3].write_bytes(files[3].read_bytes()[:-9000])
    refused: list[str] = []

    def read(path):
        for _ in range(5):
            try:
                read_image(path)
            except ImageError:
                refused.append(path.name)

    threads = [threading.Thread(target=read, args=(file,)) for file in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused == ["d.tif"] * 5
    assert is_flat(files[0]) is False

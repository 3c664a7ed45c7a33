"""``lightm segment`` as a user calls it."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import subprocess
import sys
import tracemalloc
from importlib.metadata import version

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from lightm_runtime import Cancelled, ImageError, cli, load, segment
from lightm_runtime.escaping import escape_terminal
from lightm_runtime.segmentation import _count

from ..prediction import write_images

# What lightm-runtime does not install: None stops an import.
WITHOUT_PYTORCH = """
import sys
sys.modules.update(dict.fromkeys(("torch", "nnunetv2", "nnunetv2_lightm", "scipy", "nibabel", "safetensors")))
from lightm_runtime.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def volume(tmp_path):
    """Two channels of one volume."""
    return write_images(tmp_path / "two", 2, shape=(10, 18, 17), spacing=(2.0, 1.0, 0.5))


def run(*arguments) -> int:
    return cli.main([str(argument) for argument in arguments])


def labels(path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def test_one_image_to_a_file(flat_bundle, image, tmp_path):
    assert run("segment", flat_bundle, image, "-o", tmp_path / "out" / "a.nrrd") == 0
    expected = segment(load(flat_bundle), [image]).labels[0]
    np.testing.assert_array_equal(labels(tmp_path / "out" / "a.nrrd"), expected)
    assert sitk.ReadImage(str(tmp_path / "out" / "a.nrrd")).GetSpacing() == (2.0, 0.5)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.nrrd"]


def test_without_pytorch_and_nnunet(flat_bundle, image, tmp_path):
    (picture,) = write_images(tmp_path / "picture", 1, shape=(30, 24), ending=".png")
    for file, out in ((image, tmp_path / "a.nii.gz"), (picture, tmp_path / "a.png")):
        command = [sys.executable, "-c", WITHOUT_PYTORCH, "segment", flat_bundle, file, "-o", out]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        np.testing.assert_array_equal(labels(out), segment(load(flat_bundle), [file]).labels.squeeze())


def test_folder_of_single_channels(flat_bundle, image, tmp_path):
    (tmp_path / "one" / "other.nii.gz").write_bytes(image.read_bytes())
    (tmp_path / "one" / "notes.txt").write_text("not an image")
    assert run("segment", flat_bundle, tmp_path / "one", "-o", tmp_path / "out") == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"case.nii.gz", "other.nii.gz"}


def test_folder_in_nnunets_form(flat_bundle, image, tmp_path):
    assert run("segment", flat_bundle, tmp_path / "one", "-o", tmp_path / "out") == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"case.nii.gz"}


def test_channels_by_name_by_order_and_in_one_file(volume_bundle, volume, tmp_path):
    assert run("segment", volume_bundle, tmp_path / "two", "-o", tmp_path / "by_name") == 0
    expected = labels(tmp_path / "by_name" / "case.nii.gz")
    assert len(np.unique(expected)) > 1
    other = [tmp_path / "ct.nii.gz", tmp_path / "mr.nii.gz"]
    for source, target in zip(volume, other):
        target.write_bytes(source.read_bytes())
    assert run("segment", volume_bundle, *other, "-o", tmp_path / "by_order.nii.gz") == 0
    np.testing.assert_array_equal(labels(tmp_path / "by_order.nii.gz"), expected)
    both = sitk.Compose([sitk.ReadImage(str(file)) for file in volume])
    sitk.WriteImage(both, str(tmp_path / "both.nrrd"))
    assert run("segment", volume_bundle, tmp_path / "both.nrrd", "-o", tmp_path / "vector.nii.gz") == 0
    np.testing.assert_array_equal(labels(tmp_path / "vector.nii.gz"), expected)
    along_time = sitk.JoinSeries([sitk.ReadImage(str(file)) for file in volume])
    sitk.WriteImage(along_time, str(tmp_path / "series.nii.gz"))
    assert run("segment", volume_bundle, tmp_path / "series.nii.gz", "-o", tmp_path / "joined.nii.gz") == 0
    np.testing.assert_array_equal(labels(tmp_path / "joined.nii.gz"), expected)


def test_volumes(volume_bundle, volume, tmp_path, capsys):
    assert run("segment", volume_bundle, *volume, "-o", tmp_path / "out.nii.gz", "--volumes") == 0
    rows = {row["label"]: row for row in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    found = labels(tmp_path / "out.nii.gz")
    assert set(rows) == {"organ", "lesion"}
    for number, name in enumerate(("organ", "lesion"), start=1):
        assert int(rows[name]["voxels"]) == (found == number).sum()
        assert float(rows[name]["ml"]) == pytest.approx((found == number).sum() * 2.0 * 1.0 * 0.5 / 1000, abs=1e-3)


def test_2d_images_have_no_volume(flat_bundle, image, tmp_path, capsys):
    assert run("segment", flat_bundle, image, "-o", tmp_path / "out.png", "--volumes") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["ml"] for row in rows] == ["", ""]
    with pytest.raises(ImageError, match="no volume"):
        _ = segment(load(flat_bundle), [image]).volumes_ml


def test_no_mirroring_takes_one_pass(flat_bundle, image):
    calls = []
    for mirroring in (True, False):
        totals = set()
        segment(load(flat_bundle, mirroring=mirroring), [image], progress=lambda done, total, t=totals: t.add(total))
        calls += totals
    assert calls[0] == 4 * calls[1]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_counting_takes_memory_of_a_plane_alone(dtype):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (300, 60, 50)).astype(dtype)
    labels[:, :, 0] = np.iinfo(dtype).max
    tracemalloc.start()
    counts = _count(labels, {"background": 0, "a": 1, "b": [2, 3], "c": int(np.iinfo(dtype).max), "none": 70000})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert counts == {
        "a": (labels == 1).sum(),
        "b": (labels == 2).sum() + (labels == 3).sum(),
        "c": 300 * 60,
        "none": 0,
    }
    assert peak < 2 * labels.size


def test_progress_counts_up_and_cancels(flat_bundle, image):
    seen = []
    segment(load(flat_bundle), [image], progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == list(range(seen[-1][1] + 1))
    with pytest.raises(Cancelled):
        segment(load(flat_bundle), [image], progress=lambda done, total: done == 2)
    with pytest.raises(KeyboardInterrupt):
        segment(load(flat_bundle), [image], progress=_interrupt)


def _interrupt(done, total):
    raise KeyboardInterrupt


def test_threads_change_nothing(volume_bundle, volume):
    one, three = (segment(load(volume_bundle), volume, threads=threads).labels for threads in (1, 3))
    assert (one == three).mean() > 0.999


def test_info(flat_bundle, capsys):
    assert run("info", flat_bundle) == 0
    assert json.loads(capsys.readouterr().out)["network"]["type"] == "LightMUNet"


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        run("--version")
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"lightm-runtime {version('lightm-runtime')}\n"


def test_nothing_is_overwritten(flat_bundle, image, tmp_path, capsys):
    content = image.read_bytes()
    assert run("segment", flat_bundle, image, "-o", image, "--overwrite") == 2
    assert "is an input" in capsys.readouterr().err and image.read_bytes() == content
    # As CT.nii.gz and ct.nii.gz are on Windows and macOS.
    (tmp_path / "the_same.nii.gz").hardlink_to(image)
    assert run("segment", flat_bundle, image, "-o", tmp_path / "the_same.nii.gz", "--overwrite") == 2
    assert "is an input" in capsys.readouterr().err and image.read_bytes() == content
    (tmp_path / "out.nii.gz").write_text("mine")
    assert run("segment", flat_bundle, image, "-o", tmp_path / "out.nii.gz") == 2
    assert "--overwrite" in capsys.readouterr().err and (tmp_path / "out.nii.gz").read_text() == "mine"
    assert run("segment", flat_bundle, image, "-o", tmp_path / "out.jpg") == 2
    assert "JPEG" in capsys.readouterr().err


def test_images_that_do_not_fit_are_named(flat_bundle, volume_bundle, image, volume, tmp_path, capsys):
    def refused(*arguments) -> str:
        assert run("segment", *arguments, "-o", tmp_path / "out.nii.gz") == 1
        assert not (tmp_path / "out.nii.gz").exists()
        return capsys.readouterr().err

    assert run("segment", volume_bundle, volume[0], "-o", tmp_path / "out.nii.gz") == 2
    assert "case_0001 is missing" in capsys.readouterr().err
    (tmp_path / "one.nii.gz").write_bytes(volume[0].read_bytes())
    assert "1 channel(s); the model takes 2: channel 0, channel 1" in refused(volume_bundle, tmp_path / "one.nii.gz")
    assert "2D image" in refused(volume_bundle, *write_images(tmp_path / "flat", 2, shape=(20, 20)))
    assert "no such file" in refused(flat_bundle, tmp_path / "nothing.nii.gz")
    (tmp_path / "text.nii.gz").write_text("not an image")
    assert "text.nii.gz: cannot be read" in refused(flat_bundle, tmp_path / "text.nii.gz")
    nan = sitk.GetImageFromArray(np.full((20, 20), np.nan, np.float32))
    sitk.WriteImage(nan, str(tmp_path / "nan.nrrd"))
    assert "NaN" in refused(flat_bundle, tmp_path / "nan.nrrd")
    for dtype, value in (("f4", np.nan), ("f8", np.inf)):
        # SimpleITK reads 0 for these.
        values = np.full((20, 20), 100.0, dtype)
        values[3, 4] = value
        for ending in (".nii", ".nii.gz"):
            path = tmp_path / f"{dtype}{ending}"
            nib.save(nib.Nifti1Image(values, np.eye(4)), path)
            assert f"{path}: has NaN" in refused(flat_bundle, path)
    moved = sitk.ReadImage(str(volume[1]))
    moved.SetOrigin((50.0, 0.0, 0.0))
    sitk.WriteImage(moved, str(tmp_path / "moved.nii.gz"))
    assert "differ in origin" in refused(volume_bundle, tmp_path / "one.nii.gz", tmp_path / "moved.nii.gz")


def test_one_bad_image_of_several(flat_bundle, image, tmp_path, capsys):
    (tmp_path / "one" / "bad_0000.nii.gz").write_text("not an image")
    assert run("segment", flat_bundle, tmp_path / "one", "-o", tmp_path / "out") == 1
    assert "1 of 2 images failed: bad" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["case.nii.gz"]


def test_a_segmentation_that_is_open_elsewhere_stops_no_other(flat_bundle, image, tmp_path, monkeypatch, capsys):
    """As Windows refuses to replace the file that a viewer shows."""
    (tmp_path / "one" / "shown_0000.nii.gz").write_bytes(image.read_bytes())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "case.nii.gz").write_text("shown by a viewer")
    replace = os.replace

    def refuse(source, target):
        if target == tmp_path / "out" / "case.nii.gz":
            raise PermissionError(errno.EACCES, "The process cannot access the file")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    assert run("segment", flat_bundle, tmp_path / "one", "-o", tmp_path / "out", "--overwrite") == 1
    said = capsys.readouterr().err
    assert "case.nii.gz: cannot be replaced: The process cannot access the file. Close it" in said
    assert "1 of 2 images failed: case" in said
    assert (tmp_path / "out" / "case.nii.gz").read_text() == "shown by a viewer"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"case.nii.gz", "shown.nii.gz"}


@pytest.mark.parametrize(
    "error",
    [PermissionError(errno.EACCES, "Permission denied"), OSError(errno.EIO, "Input/output error"), MemoryError()],
)
def test_an_image_that_cannot_be_opened_or_is_too_large_stops_no_other(
    error, flat_bundle, image, tmp_path, monkeypatch, capsys
):
    for name in ("a", "z"):
        (tmp_path / "one" / f"{name}_0000.nii.gz").write_bytes(image.read_bytes())
    segment = cli.segment

    def fail(model, files, **options):
        if files[0].name == "case_0000.nii.gz":
            raise error
        return segment(model, files, **options)

    monkeypatch.setattr(cli, "segment", fail)
    assert run("segment", flat_bundle, tmp_path / "one", "-o", tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert f"lightm: case: {str(error) or 'not enough memory'}\n" in said and "1 of 3 images failed: case" in said
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.nii.gz", "z.nii.gz"}


@pytest.mark.parametrize("newline, end", [("\r\n", b"\r\n"), ("\n", b"\n")], ids=["Windows", "elsewhere"])
def test_the_table_in_a_code_page_without_the_letters_of_a_label(
    newline, end, flat_bundle, image, tmp_path, monkeypatch
):
    """As Windows has cp1252 for a pipe, and ends lines with two characters."""
    model = load(flat_bundle)
    model.bundle.pipeline["output"]["labels"] = {"background": 0, "肝": 1, "lésion": 2}
    monkeypatch.setattr(cli, "load", lambda *arguments, **options: model)
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="cp1252", newline=newline))
    assert run("segment", flat_bundle, image, "-o", tmp_path / "out.nii.gz", "--volumes") == 0
    assert run("info", flat_bundle) == 0
    sys.stdout.flush()
    lines = written.getvalue().split(end)
    assert lines[0] == b"case,label,voxels,ml"
    assert lines[1].startswith(b"case,\\u809d,") and lines[2].startswith("case,lésion,".encode("cp1252"))
    assert b"\r\r\n" not in written.getvalue()


HOSTILE = "\x1b]0;title\x07\x1b[2Jorgan\x9b31m\x7f\u202e\u2028\r\n"
ACTING = {character for character in HOSTILE if not character.isprintable()} - {"\n"}


def test_names_in_a_model_act_on_no_terminal(flat_bundle, image, tmp_path, monkeypatch, capsys):
    """Escape sequences of C0 and C1, and what turns the reading direction around; formulas in a table."""
    model = load(flat_bundle)
    model.bundle.pipeline["name"] = HOSTILE
    model.bundle.pipeline["output"]["labels"] = {"background": 0, HOSTILE: 1, "=1+1": 2}
    model.bundle.pipeline["input"]["channels"][0]["name"] = HOSTILE
    monkeypatch.setattr(cli, "load", lambda *arguments, **options: model)
    assert run("segment", flat_bundle, image, "-o", tmp_path / "out.nii.gz", "--volumes") == 0
    table = capsys.readouterr().out
    assert [row["label"] for row in csv.DictReader(io.StringIO(table))] == [escape_terminal(HOSTILE), "'=1+1"]
    assert run("info", flat_bundle) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed) == model.bundle.pipeline
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((9, 9, 2), np.float32), isVector=True), str(tmp_path / "two.nrrd"))
    assert run("segment", flat_bundle, tmp_path / "two.nrrd", "-o", tmp_path / "2.nii.gz") == 1
    said = capsys.readouterr().err
    assert "the model takes 1: \\u001b]0;title\\u0007" in said and said.count("\n") == 1
    assert not ACTING & set(table + printed + said)


def test_half_a_character_is_printed_as_json_names_it():
    text = json.loads('"a\\ud800"')
    assert escape_terminal(text) == "a\\ud800" and json.loads(f'"{escape_terminal(text)}"') == text


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_names_of_files_act_on_no_terminal(flat_bundle, image, tmp_path, capsys):
    """Nor do those of an archive that somebody sent."""
    named = tmp_path / f"{HOSTILE}_0000.nii.gz"
    named.write_bytes(image.read_bytes())
    assert run("segment", flat_bundle, named, image, "-o", tmp_path / "out", "--volumes") == 0
    assert run("segment", flat_bundle, named, "-o", tmp_path / "out") == 2
    said = capsys.readouterr()
    assert not ACTING & set(said.out + said.err)
    assert (tmp_path / "out" / f"{HOSTILE}.nii.gz").is_file()


def test_any_number_of_threads(flat_bundle, image, tmp_path):
    command = ("segment", flat_bundle, image, "--overwrite", "-o")
    assert run(*command, tmp_path / "one.nii.gz", "--threads", 1) == 0
    for threads in (10**9, 2**62, 10**30):
        assert run(*command, tmp_path / "many.nii.gz", "--threads", threads) == 0
        assert (labels(tmp_path / "many.nii.gz") == labels(tmp_path / "one.nii.gz")).mean() > 0.999

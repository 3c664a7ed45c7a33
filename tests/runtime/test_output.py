"""What labels are written to: formats that hold them, folders that take them, and nothing in vain."""

from __future__ import annotations

import os
import stat

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from lightm_runtime import ImageError, cli, load
from lightm_runtime.formats import READ, REFUSED, WRITTEN
from lightm_runtime.images import read_case
from lightm_runtime.output import write_labels

from ..prediction import write_images

RNG = np.random.default_rng(0)
VOLUMES = (".nii.gz", ".nii", ".nrrd", ".mha")


@pytest.fixture
def volume(tmp_path):
    """One channel of a volume, to be read by itself."""
    (file,) = write_images(tmp_path / "volume", 1, shape=(5, 18, 17), spacing=(2.0, 1.0, 0.5))
    return file


@pytest.fixture
def no_work(monkeypatch):
    """Fails where an image is segmented."""

    def segment(*arguments, **options):
        pytest.fail("an image was segmented")

    monkeypatch.setattr(cli, "segment", segment)


def run(*arguments) -> int:
    return cli.main([str(argument) for argument in arguments])


@pytest.mark.parametrize("most", [2, 300])
@pytest.mark.parametrize("ending", WRITTEN)
def test_each_format_gives_back_labels_and_place(ending, most, tmp_path):
    flat = ending in (".png", ".bmp", ".tif", ".tiff")
    if ending == ".bmp" and most > 255:
        pytest.skip("BMP has 8 bits")
    shape = (18, 17) if flat else (5, 18, 17)
    image = sitk.GetImageFromArray(RNG.integers(0, 200, shape).astype(np.uint8))
    image.SetSpacing((0.5, 1.0, 2.0)[: len(shape)])
    source = tmp_path / f"image{ending}"
    sitk.WriteImage(image, str(source))
    case = read_case([source], ["x"], "NaturalImage2DIO" if flat else "SimpleITKIO")
    labels = RNG.integers(0, most + 1, case.voxels.shape[1:]).astype(np.uint16)
    write_labels(labels, case, tmp_path / "out" / f"labels{ending}")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"labels{ending}"]
    again = read_case([tmp_path / "out" / f"labels{ending}"], ["x"], case.reader)
    np.testing.assert_array_equal(again.voxels[0], labels)
    if not flat:
        for what in ("spacing", "origin", "direction"):
            np.testing.assert_allclose(getattr(again.geometry, what), getattr(case.geometry, what), err_msg=what)


@pytest.mark.parametrize("ending", [*sorted(set(READ) - set(WRITTEN)), *REFUSED])
def test_formats_that_do_not_hold_labels_are_refused_before_any_work(
    ending, flat_bundle, image, tmp_path, no_work, capsys
):
    assert run("segment", flat_bundle, image, "-o", tmp_path / "out" / f"labels{ending}") == 2
    assert "JPEG" in (said := capsys.readouterr().err) or all(one in said for one in WRITTEN)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ImageError, match=f"labels{ending}: "):
        write_labels(np.zeros((1, 30, 24)), read_case([image], ["x"], "SimpleITKIO"), tmp_path / f"labels{ending}")


@pytest.mark.parametrize("ending", sorted(set(WRITTEN) - set(VOLUMES)))
def test_a_volume_goes_into_no_format_that_loses_some_of_it(ending, flat_bundle, volume, tmp_path, no_work, capsys):
    """PNG holds its first plane, TIFF and GIPL not where it lies."""
    assert run("segment", flat_bundle, volume, "-o", tmp_path / "out" / f"labels{ending}") == 2
    assert f"labels{ending}: " in (said := capsys.readouterr().err) and all(one in said for one in VOLUMES)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ImageError, match=f"labels{ending}: "):
        write_labels(np.zeros((5, 18, 17)), read_case([volume], ["x"], "SimpleITKIO"), tmp_path / f"labels{ending}")


@pytest.mark.parametrize("ending", ["/../../escaped.nii.gz", "_escaped", ".vtk", ".NII.GZ", "", None, 5])
def test_a_models_ending_must_be_a_known_one(ending, flat_bundle, image, tmp_path, no_work, monkeypatch, capsys):
    model = load(flat_bundle)
    model.bundle.pipeline["input"]["file_ending"] = ending
    monkeypatch.setattr(cli, "load", lambda *arguments, **options: model)
    assert run("segment", flat_bundle, image, "-o", tmp_path / "out" / "folder") == 1
    said = capsys.readouterr().err
    assert f"{flat_bundle}: its images end in {ending!r}; labels are written as .nii.gz" in said
    assert not (tmp_path / "out").exists()


def test_outputs_that_cannot_be_written_are_seen_before_any_work(flat_bundle, image, tmp_path, no_work, capsys):
    (tmp_path / "file").write_text("not a folder")
    for out in (tmp_path / "file" / "labels.nii.gz", tmp_path / "file" / "folder", tmp_path / "file"):
        assert run("segment", flat_bundle, image, "-o", out) == 1
        assert f"{tmp_path / 'file'}" in capsys.readouterr().err
    (tmp_path / "out" / "case.nii.gz").mkdir(parents=True)
    assert run("segment", flat_bundle, image, "-o", tmp_path / "out", "--overwrite") == 2
    assert "case.nii.gz: is a folder" in capsys.readouterr().err


def test_a_folder_that_takes_no_files_is_seen_before_any_work(
    flat_bundle, image, tmp_path, no_work, monkeypatch, capsys
):
    """As a folder of another user, or a disk that is read alone."""

    def refuse(path, *arguments, **options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.touch", refuse)
    assert run("segment", flat_bundle, image, "-o", tmp_path / "out") == 1
    assert f"{tmp_path / 'out'}: cannot be written to (Permission denied)" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no permissions of this kind")
@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_labels_have_the_permissions_of_new_files_or_of_the_old_one(umask, mode, image, tmp_path):
    case, labels = read_case([image], ["x"], "SimpleITKIO"), np.zeros((1, 30, 24), np.uint8)
    path = tmp_path / "labels.nii.gz"
    before = os.umask(umask)
    try:
        write_labels(labels, case, path)
        assert stat.S_IMODE(path.stat().st_mode) == mode
        path.chmod(0o640)
        write_labels(labels, case, path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    finally:
        os.umask(before)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_names_that_are_not_utf_8_are_refused(flat_bundle, image, tmp_path, no_work, capsys):
    """SimpleITK would abort the process, and all images with it."""
    named = tmp_path / os.fsdecode(b"caf\xe9.nii.gz")
    named.write_bytes(image.read_bytes())
    assert run("segment", flat_bundle, image, named, "-o", tmp_path / "out") == 1
    assert "not UTF-8" in capsys.readouterr().err
    with pytest.raises(ImageError, match="not UTF-8"):
        read_case([named], ["x"], "SimpleITKIO")
    assert run("segment", flat_bundle, image, "-o", named, "--overwrite") == 2
    assert "not UTF-8" in capsys.readouterr().err


def test_labels_of_tiff_volumes_and_their_spacing(volume_bundle, tmp_path, monkeypatch, capsys):
    """nnU-Net's reader of TIFF volumes has the spacing in a file next to the image, and next to the labels."""
    model = load(volume_bundle)
    model.bundle.pipeline["input"].update(reader="Tiff3DIO", file_ending=".tif")
    monkeypatch.setattr(cli, "load", lambda *arguments, **options: model)
    (tmp_path / "in").mkdir()
    for channel in range(2):
        values = RNG.integers(0, 200, (6, 16, 17)).astype(np.uint8)
        tifffile.imwrite(tmp_path / "in" / f"case_{channel:04d}.tif", values)
    command = ("segment", volume_bundle, tmp_path / "in", "-o", tmp_path / "out", "--volumes")
    assert run(*command) == 0
    said = capsys.readouterr()
    assert "case_0000.tif: its voxels are taken for 1 mm" in said.err
    assert (tmp_path / "out" / "case.json").read_text() == '{"spacing": [1.0, 1.0, 1.0]}\n'
    (tmp_path / "in" / "case.json").write_text('{"spacing": [2.0, 1.0, 0.5]}')
    (tmp_path / "out" / "case.tif").unlink()
    assert run(*command) == 2
    assert "case.json already exists" in capsys.readouterr().err
    assert run(*command, "--overwrite") == 0
    assert "taken for 1 mm" not in capsys.readouterr().err
    assert (tmp_path / "out" / "case.json").read_text() == '{"spacing": [2.0, 1.0, 0.5]}\n'
    # Next to the images there is one file for both.
    assert run("segment", volume_bundle, tmp_path / "in", "-o", tmp_path / "in") == 0
    assert {path.name for path in (tmp_path / "in").iterdir()} >= {"case.json", "case.tif"}
    assert (tmp_path / "in" / "case.json").read_text() == '{"spacing": [2.0, 1.0, 0.5]}'

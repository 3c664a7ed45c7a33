"""Phantoms: layout, contents, seeds."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_lightm.dataset_conversion import phantoms
from nnunetv2_lightm.dataset_conversion._convert import ConversionOptions
from nnunetv2_lightm.dataset_conversion.Dataset801_LiTS import convert_lits
from nnunetv2_lightm.dataset_conversion.Dataset802_MontgomeryShenzhen import convert_montgomery_shenzhen

SMALL = (20, 48, 48)


@pytest.fixture(scope="module")
def lits_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    phantoms.write_lits_phantoms(folder, num_cases=4, num_test_cases=1, seed=1)
    return folder


def read(file):
    image = sitk.ReadImage(str(file))
    return image, sitk.GetArrayFromImage(image)


def test_files_are_those_of_the_challenge(lits_folder):
    assert sorted(path.name for path in lits_folder.glob("[!.]*")) == sorted(
        [f"{kind}-{number}.nii.gz" for kind in ("volume", "segmentation") for number in range(4)]
        + ["test-volume-0.nii.gz"]
    )


def test_volumes_are_like_ct(lits_folder):
    spacings = set()
    for number in range(4):
        image, hu = read(lits_folder / f"volume-{number}.nii.gz")
        label_image, label = read(lits_folder / f"segmentation-{number}.nii.gz")
        assert hu.dtype == np.int16
        assert hu.shape == label.shape == (40, 96, 96)
        assert image.GetSpacing() == label_image.GetSpacing()
        assert image.GetOrigin() == label_image.GetOrigin()
        spacings.add(image.GetSpacing())
        x_mm, _, z_mm = image.GetSpacing()
        assert z_mm > 1.3 * x_mm
        assert set(np.unique(label)) == {0, 1, 2}
        assert 0.01 < (label > 0).mean() < 0.1
        # Told apart by intensity, but not by that alone: other organs are as bright as the liver.
        assert hu[label == 1].mean() - hu[label == 2].mean() > 30
        assert ((hu > 90) & (hu < 150) & (label == 0)).sum() > 0.2 * (label == 1).sum()
        assert hu.min() < -900
        assert hu.max() > 300
        assert 8 < hu[:, :3, :3].clip(-1024).std() < 25 or hu[:, :3, :3].min() == -1024
    assert len(spacings) == 4


def test_tumours_lie_in_the_liver(lits_folder):
    for number in range(4):
        _, label = read(lits_folder / f"segmentation-{number}.nii.gz")
        tumours = sitk.ConnectedComponent(sitk.GetImageFromArray((label == 2).astype(np.uint8)))
        grown = sitk.GetArrayFromImage(sitk.BinaryDilate(sitk.Cast(tumours > 0, sitk.sitkUInt8), (1, 1, 1))) > 0
        assert (label[grown] > 0).mean() > 0.5


def test_a_case_depends_on_seed_and_number_only(lits_folder, tmp_path):
    phantoms.write_lits_phantoms(tmp_path / "two", num_cases=2, seed=1)
    phantoms.write_lits_phantoms(tmp_path / "other", num_cases=1, seed=2)
    for name in ("volume-1.nii.gz", "segmentation-1.nii.gz"):
        assert np.array_equal(read(tmp_path / "two" / name)[1], read(lits_folder / name)[1])
    assert not np.array_equal(read(tmp_path / "other/volume-0.nii.gz")[1], read(lits_folder / "volume-0.nii.gz")[1])


def test_lits_phantoms_convert(folders, tmp_path):
    phantoms.write_lits_phantoms(tmp_path / "source", num_cases=5, num_test_cases=1, seed=3, shape=SMALL)
    report = convert_lits(tmp_path / "source", ConversionOptions(workers=1))
    assert len(report.with_status("converted")) == 6
    assert not report.ignored_files


def test_chest_phantoms_convert(folders, tmp_path):
    phantoms.write_chest_xray_phantoms(tmp_path / "source", num_cases=6, num_test_cases=1, seed=3, shape=(40, 32))
    report = convert_montgomery_shenzhen(tmp_path / "source", ConversionOptions(workers=1))
    assert len(report.with_status("converted")) == 7
    assert len(report.in_part("unlabelled")) == 1
    assert {case.case[:3] for case in report.cases} == {"MCU", "CHN"}


@pytest.mark.parametrize(
    ("write", "shape"),
    [(phantoms.write_lits_phantoms, (4, 96, 96)), (phantoms.write_chest_xray_phantoms, (64, 64, 64))],
)
def test_bad_arguments_are_refused(tmp_path, write, shape):
    with pytest.raises(ValueError, match="at least one phantom"):
        write(tmp_path / "none", num_cases=0, seed=1)
    with pytest.raises(ValueError, match="shape=.*need"):
        write(tmp_path / "none", num_cases=1, seed=1, shape=shape)
    assert not (tmp_path / "none").exists()


def test_main(tmp_path, capsys):
    assert phantoms.main([str(tmp_path / "a"), "--num-cases", "1", "--seed", "5", "--shape", "16", "20", "24"]) == 0
    assert read(tmp_path / "a/volume-0.nii.gz")[1].shape == (16, 20, 24)
    assert phantoms.main([str(tmp_path / "b"), "--kind", "chest-xray", "--num-cases", "2"]) == 0
    assert len(list((tmp_path / "b/masks").iterdir())) == 2
    assert phantoms.main([str(tmp_path / "c"), "--num-cases", "0"]) == 1
    assert "at least one phantom" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["lits", "chest-xray"])
def test_real_data_of_the_same_names_are_not_replaced(tmp_path, capsys, kind):
    shape = ["16", "16", "16"] if kind == "lits" else ["16", "16"]
    arguments = [str(tmp_path / "data"), "--kind", kind, "--num-cases", "2", "--shape", *shape]
    assert phantoms.main(arguments) == 0
    made = {path: path.read_bytes() for path in (tmp_path / "data").rglob("[!.]*") if path.is_file()}
    assert phantoms.main(arguments) == 0, "what was made here is made again"
    assert {path: path.read_bytes() for path in made} == made
    last = sorted(path for path in made if path.name.endswith((".nii.gz", ".png")))[-1]
    last.write_bytes(b"a real one")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in made}
    assert phantoms.main(arguments) == 1
    assert f"holds {last}, not made by this command" in capsys.readouterr().err
    (tmp_path / "data" / ".nnunetv2_lightm.json").unlink(missing_ok=True)
    assert phantoms.main(arguments) == 1
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in made} == before

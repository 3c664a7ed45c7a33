"""The command's --surface and --against, and the JSON that is read back."""

from __future__ import annotations

import json
import sys

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from nnunetv2_lightm.commands.evaluate import main
from nnunetv2_lightm.evaluation.folders import evaluate_folder
from nnunetv2_lightm.evaluation.json_files import evaluation_from_json, read_evaluation, to_json
from nnunetv2_lightm.evaluation.paired import PAIRS, compare
from nnunetv2_lightm.evaluation.scores import EvaluationError

LABELS = {"background": 0, "liver": 1, "tumor": 2}
SPACING_XYZ = (0.5, 0.7, 3.0)


def volume(shift=0, tumor=True):
    array = np.zeros((8, 16, 16), np.uint8)
    array[2 + shift : 5 + shift, 3:9, 3:9] = 1
    if tumor:
        array[2:4, 11:14, 11:14] = 2
    return array


def write_volume(path, array):
    path.parent.mkdir(exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING_XYZ)
    sitk.WriteImage(image, str(path))


@pytest.fixture
def folders(tmp_path):
    """Four cases; method a is right but for a missed tumor, method b shifts the liver by one slice of 3 mm."""
    for number in range(4):
        name = f"case_{number}.nii.gz"
        write_volume(tmp_path / "labelsTs" / name, volume(tumor=number < 3))
        write_volume(tmp_path / "a" / name, volume(tumor=0 < number < 3))
        write_volume(tmp_path / "b" / name, volume(shift=1, tumor=number < 3))
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": LABELS, "file_ending": ".nii.gz"}))
    return tmp_path / "a", tmp_path / "b", tmp_path / "labelsTs"


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_surfaces_in_mm_by_the_files_spacing(folders, tmp_path, capsys, recwarn):
    a, b, references = folders
    output, csv_file = tmp_path / "b.json", tmp_path / "b.csv"
    assert main([str(b), str(references), "--surface", "--json", str(output), "--csv", str(csv_file)]) == 0
    assert [str(warning.message) for warning in recwarn] == []
    table = capsys.readouterr().out.splitlines()
    assert cells(table[0]) == ["class", "DSC", "mIoU", "HD95 [mm]", "NSD at 2 mm", "cases"]
    assert cells(table[2])[3] == "3.00 ± 0.00 [3.00, 3.00]"
    assert csv_file.read_text().startswith("case,class,DSC,IoU,HD95_mm,NSD\n")
    content = json.loads(output.read_text())
    assert content["surface"] == {"nsd_tolerance_mm": 2.0, "unit": "mm"}
    assert content["classes"]["liver"]["HD95_mm"] == {"mean": pytest.approx(3), "std": 0, "ci95": [3, 3]}
    assert content["cases"]["case_3"]["tumor"] == dict.fromkeys(("DSC", "IoU", "HD95_mm", "NSD"))

    output = tmp_path / "a.json"
    assert main([str(a), str(references), "--surface", "--nsd-tolerance-mm", "3", "--json", str(output)]) == 0
    missed = json.loads(output.read_text())["cases"]["case_0"]["tumor"]
    diagonal = float(np.linalg.norm(np.multiply((16, 16, 8), SPACING_XYZ)))
    assert missed == {"DSC": 0, "IoU": 0, "HD95_mm": pytest.approx(diagonal), "NSD": 0}
    assert "NSD at 3 mm" in capsys.readouterr().out


def test_images_without_a_spacing_are_measured_in_pixels(tmp_path, capsys):
    for folder, start in (("references", 3), ("predictions", 5)):
        (tmp_path / folder).mkdir()
        array = np.zeros((20, 20), np.uint8)
        array[4:10, start : start + 6] = 1
        Image.fromarray(array).save(tmp_path / folder / "x.png")
    labels = tmp_path / "dataset.json"
    labels.write_text(json.dumps({"labels": {"background": 0, "lung": 1}, "file_ending": ".png"}))
    output = tmp_path / "x.json"
    assert main([str(tmp_path / "predictions"), str(tmp_path / "references"), "--surface", "--json", str(output)]) == 0
    captured = capsys.readouterr()
    assert ".png files have no spacing" in captured.err
    assert cells(captured.out.splitlines()[0])[3:5] == ["HD95 [px]", "NSD at 2 px"]
    content = json.loads(output.read_text())
    assert content["surface"]["unit"] == "pixel"
    assert content["cases"]["x"]["lung"]["HD95_mm"] == 2
    assert content["cases"]["x"]["lung"]["NSD"] == 1
    assert content["average"]["DSC"]["ci95"] is None
    assert not read_evaluation(output).spacing_known


def test_against_a_second_method(folders, tmp_path, capsys):
    a, b, references = folders
    output = tmp_path / "both.json"
    arguments = [str(a), str(references), "--against", str(b), "--surface", "--json", str(output)]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"{a} minus {b}, paired" in lines
    rows = [cells(line) for line in lines[lines.index(f"{a} minus {b}, paired") + 2 :]]
    assert rows[0] == ["difference", "class", "mean", "95 % interval", "p", "cases"]
    # liver: 1 - 2/3 in each of four cases; tumor: one of three is missed, which is one difference that is not zero
    assert rows[2] == ["DSC", "liver", "+0.3333", "[+0.3333, +0.3333]", "0.12", "4"]
    assert rows[3] == ["DSC", "tumor", "-0.3333", "[-1.0000, +0.0000]", "1", "3"]
    assert rows[8] == ["HD95 [mm]", "liver", "-3.00", "[-3.00, -3.00]", "0.12", "4"]
    content = json.loads(output.read_text())
    assert content["comparison"]["DSC"]["classes"]["liver"]["mean"] == pytest.approx(1 / 3)
    assert content["comparison"]["DSC"]["average"]["cases"] == 4
    assert content["average"]["DSC"]["mean"] == pytest.approx((1 + 2 / 3) / 2)
    again = compare(read_evaluation(output), evaluation_from_json(content["against"]), "NSD")
    direct = content["comparison"]["NSD"]["classes"]["liver"]
    assert (again.classes["liver"].mean, list(again.classes["liver"].interval)) == (direct["mean"], direct["interval"])


def test_false_positives_of_one_method_count_against_it(folders, tmp_path, capsys):
    """Two cases without a tumor, in which only b finds one; in case_0, a misses one."""
    a, b, references = folders
    for number in (2, 3):
        write_volume(references / f"case_{number}.nii.gz", volume(tumor=False))
        write_volume(a / f"case_{number}.nii.gz", volume(tumor=False))
        write_volume(b / f"case_{number}.nii.gz", volume(shift=1, tumor=True))
    output = tmp_path / "both.json"
    assert main([str(a), str(references), "--against", str(b), "--surface", "--json", str(output)]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [cells(line) for line in lines[lines.index(f"{a} minus {b}, paired") + 2 :]]
    diagonal = float(np.linalg.norm(np.multiply((16, 16, 8), SPACING_XYZ)))
    # -1, 0, +1, +1; and of HD95 +diagonal, 0, -diagonal, -diagonal
    assert [(row[0], row[2], row[5]) for row in rows if row[1] == "tumor"] == [
        *((metric, "+0.2500", "4") for metric in ("DSC", "mIoU")),
        ("HD95 [mm]", f"{-diagonal / 4:+.2f}", "4"),
        ("NSD at 2 mm", "+0.2500", "4"),
    ]
    content = json.loads(output.read_text())
    assert content["comparison_rules"]["pairs"] == PAIRS
    assert content["comparison"]["DSC"]["classes"]["tumor"]["cases"] == 4
    again = compare(read_evaluation(output), evaluation_from_json(content["against"]), "HD95_mm")
    assert again.classes["tumor"].mean == content["comparison"]["HD95_mm"]["classes"]["tumor"]["mean"]


def test_a_case_without_any_class_is_not_in_the_number_of_cases(folders, capsys):
    a, _, references = folders
    for folder in (a, references):
        write_volume(folder / "case_9.nii.gz", np.zeros((8, 16, 16), np.uint8))
    assert main([str(a), str(references)]) == 0
    assert [cells(line)[-1] for line in capsys.readouterr().out.splitlines()[2:]] == ["4", "3", "4"]


@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO", "NibabelIOWithReorient", "SimpleITKIOWithReorient"])
@pytest.mark.parametrize("slices_along", [0, 1, 2])
def test_readers_that_turn_the_axes_measure_the_same_distances(tmp_path, reader, slices_along):
    """Slices of 3 mm along x, y or z of the body, as in sagittal, coronal and axial images, stored last."""
    axes = [(slices_along + step) % 3 for step in (1, 2, 3)]
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, axes] * (-0.5, 0.7, 3.0)
    affine[:3, 3] = (20, -5, 7)
    array = np.zeros((16, 16, 8), np.uint8)
    array[3:9, 3:9, 2:5] = 1
    for folder, values in (("predictions", np.roll(array, 1, axis=2)), ("references", array)):
        (tmp_path / folder).mkdir()
        nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / folder / "x.nii.gz")
    content = {
        "labels": {"background": 0, "liver": 1},
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": reader,
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    output = tmp_path / "x.json"
    assert main([str(tmp_path / "predictions"), str(tmp_path / "references"), "--surface", "--json", str(output)]) == 0
    assert json.loads(output.read_text())["average"]["HD95_mm"]["mean"] == pytest.approx(3)


@pytest.mark.parametrize("reader", [5, ["SimpleITKIO"], {}, True])
def test_a_reader_that_is_no_name_is_refused(folders, tmp_path, capsys, reader):
    a, _, references = folders
    content = {"labels": LABELS, "file_ending": ".nii.gz", "overwrite_image_reader_writer": reader}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    assert main([str(a), str(references)]) == 1
    error = capsys.readouterr().err
    assert f"dataset.json: overwrite_image_reader_writer is {reader!r}; expected the name of a reader" in error


def test_rules_are_in_the_help_and_in_the_json(folders, tmp_path, capsys):
    a, _, references = folders
    with pytest.raises(SystemExit):
        main(["--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert "HD95 is the diagonal of the image" in words
    assert "bootstrap 95 % interval" in words
    assert PAIRS in words
    assert main([str(a), str(references), "--json", str(tmp_path / "a.json")]) == 0
    rules = json.loads((tmp_path / "a.json").read_text())["rules"]
    assert "diagonal of the image" in rules["one"]
    assert "not counted" in rules["neither"]


@pytest.mark.parametrize("surface", [None, 1.5])
def test_json_round_trip(folders, tmp_path, surface):
    a, _, references = folders
    evaluation = evaluate_folder(a, references, LABELS, file_ending=".nii.gz", nsd_tolerance_mm=surface)
    (tmp_path / "a.json").write_text(to_json(evaluation))
    again = read_evaluation(tmp_path / "a.json")
    assert (again.cases, again.classes, list(again.scores)) == (
        evaluation.cases,
        evaluation.classes,
        list(evaluation.scores),
    )
    assert (again.nsd_tolerance_mm, again.spacing_known) == (surface, True)
    for metric, scores in evaluation.scores.items():
        np.testing.assert_array_equal(again.scores[metric], scores)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"classes": {"liver": {}}, "cases": {}}',
        '{"classes": {"liver": {}}, "cases": {"a": {"x": 1}}}',
    ],
)
def test_json_that_is_no_evaluation_is_named(tmp_path, text):
    (tmp_path / "odd.json").write_text(text)
    with pytest.raises(EvaluationError, match=r"odd\.json: "):
        read_evaluation(tmp_path / "odd.json")
    with pytest.raises(EvaluationError, match="missing.json"):
        read_evaluation(tmp_path / "missing.json")


def test_missing_monai_ends_the_command_before_any_work(folders, tmp_path, monkeypatch, capsys):
    a, _, references = folders
    for name in ("monai", "monai.metrics"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main([str(a), str(references), "--surface", "--json", str(tmp_path / "a.json")]) == 1
    assert 'pip install "monai>=' in capsys.readouterr().err
    assert not (tmp_path / "a.json").exists()
    assert main([str(a), str(references)]) == 0


@pytest.mark.parametrize("options", [["--nsd-tolerance-mm", "1"], ["--surface", "--nsd-tolerance-mm", "-1"]])
def test_tolerance_needs_surface_and_is_a_distance(folders, options):
    with pytest.raises(SystemExit):
        main([str(folders[0]), str(folders[2]), *options])


def test_cases_that_only_one_method_has_are_named(folders, capsys):
    a, b, references = folders
    (b / "case_2.nii.gz").unlink()
    assert main([str(a), str(references), "--against", str(b), "--chill"]) == 1
    assert "only one of them has: case_2" in capsys.readouterr().err

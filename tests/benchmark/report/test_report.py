"""The report: what a reader finds in it, as Markdown and as a page."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from nnunetv2_lightm.benchmark.report import document as report
from nnunetv2_lightm.benchmark.report.contenders import find_contenders
from nnunetv2_lightm.benchmark.report.document import write_report
from nnunetv2_lightm.benchmark.report.overview import overview
from nnunetv2_lightm.benchmark.report.plots import method_styles
from nnunetv2_lightm.benchmark.report.score_tables import results_tables
from nnunetv2_lightm.benchmark.results import SECONDS, write_results
from nnunetv2_lightm.cli import main as cli

from ..make_results import TRAINERS, make_results, make_run, with_images

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Collects what is on a page, and fails where tags do not close in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.headings, self.images, self.ids, self.links, self.tags = [], [], [], [], [], set()
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(attrs)
        if "id" in attrs:
            self.ids.append(attrs["id"])
        if tag == "a" and "href" in attrs:
            self.links.append(attrs["href"])

    def handle_startendtag(self, tag, attrs):
        raise AssertionError(f"<{tag}/> is no HTML")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and re.fullmatch("h[1-6]", self.open[-1]):
            self.headings.append((self.open[-1], data))


def table_rows(markdown: str, first_cell: str) -> list[list[str]]:
    """Cells of the rows that begin so."""
    lines = [line for line in markdown.splitlines() if line.startswith(f"| {first_cell} ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A report over two comparisons, one of them with images and an unfinished run."""
    root = tmp_path_factory.mktemp("report")
    first = with_images(make_results(seeds=(0, 1)), root / "data")
    torn = replace(make_run("nnUNetTrainerUNETR", 0.9, complete=False), failure="RuntimeError: out of *memory*")
    first = replace(first, runs=(*first.runs, torn))
    second = make_results(title="Equal seconds", equal=SECONDS, budget=600.0)
    write_report([first, second], root / "report", "A <title> & more")
    return root / "report"


@pytest.fixture(scope="module")
def markdown(written):
    return (written / "report.md").read_text()


@pytest.fixture(scope="module")
def page_text(written):
    return (written / "report.html").read_text()


def test_markdown_and_its_pictures(written, markdown):
    pictures = re.findall(r"!\[([^\]]+)\]\((figures/[^)]+)\)", markdown)
    assert len(pictures) == 3 + 3 + 3
    assert {path for _, path in pictures} == {f"figures/{file.name}" for file in (written / "figures").glob("[!.]*")}
    assert all((written / path).read_bytes().startswith(b"\x89PNG") for _, path in pictures)


def test_page_is_whole_and_needs_nothing_else(page_text, markdown):
    page = Page(page_text)
    assert len(page.images) == 9
    assert all(image["src"].startswith("data:image/png;base64,") and len(image["alt"]) > 20 for image in page.images)
    assert not page.tags & {"script", "link", "iframe"}
    assert not re.search(r"(https?:)?//[a-z]", re.sub(r'src="data:[^"]+"', "", page_text))
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page_text
    assert (
        page_text.count("<table>")
        == page_text.count('<div class="scroll"')
        == len(re.findall(r"^\| -", markdown, re.M))
    )
    assert "<title>A &lt;title&gt; &amp; more</title>" in page_text


def test_headings_go_down_step_by_step_and_contents_lead_to_them(page_text):
    page = Page(page_text)
    levels = [int(tag[1]) for tag, _ in page.headings]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(deeper - level <= 1 for level, deeper in zip(levels, levels[1:], strict=False))
    assert page.links == ["#comparison-1", "#comparison-2"] and page.ids == ["comparison-1", "comparison-2"]


def test_conditions_and_commands(markdown):
    equal_iterations, equal_seconds = markdown.split("## Equal seconds")
    assert "had the budget 8epochs\\_50iters" in equal_iterations
    assert "as many iterations as fit into 600 s" in equal_seconds
    assert "- iterations of LightMUNet: 400" in equal_seconds
    assert "```sh\nnnUNetv2_lightm benchmark -d 802 -c 2d -tr nnUNetTrainer" in equal_iterations
    for fact in ("- patch: 256 x 256", "- batch: 4", "- scored on: test cases", "- torch: 2.14.1", "- nnunetv2: 2.8.1"):
        assert fact in equal_iterations


def test_several_comparisons_have_an_overview(tmp_path):
    first, second = make_results(), make_results(TRAINERS[1::-1], title="Second")
    third = make_results(("nnUNetTrainerUNETR", "nnUNetTrainer"))
    lines = overview([first, second, third]).splitlines()
    assert table_rows("\n".join(lines), "method") == [["method", *(f"comparison {i}" for i in (1, 2, 3))]]
    assert [line.split()[1] for line in lines[-2:]] == ["nnUNetTrainer", "LightMUNet"]  # the others are in one alone
    stock, ours = (table_rows("\n".join(lines), name)[0] for name in ("nnUNetTrainer", "LightMUNet"))
    average = find_contenders(first)[0].evaluation.average("DSC")
    assert stock[1].startswith(f"**{100 * average:.2f}** (") and not ours[1].startswith("**")
    assert ours[2].startswith("**") and ours[3] == "-"
    assert not stock[3].startswith(("-", "**"))  # UNETR is the best there
    assert overview([first, make_results(("nnUNetTrainerUNETR",))]) is None
    write_report([first, second], tmp_path, "Two")
    assert lines[0] in (tmp_path / "report.md").read_text().split("## ")[0]


def test_unfinished_runs_are_named_and_in_no_table(markdown):
    assert "- nnUNetTrainerUNETR\\_8epochs\\_50iters, fold 0: 8 epochs trained" in markdown
    assert "  - failed; its log ends: RuntimeError: out of \\*memory\\*" in markdown
    assert len(table_rows(markdown, "UNETR")) == 2  # what it costs, and the seconds it needed so far


def test_results_table():
    results = make_results(("nnUNetTrainer", "nnUNetTrainerLightMUNet"), seeds=(0, 1))
    text = results_tables(results, find_contenders(results))
    header, stock, ours = (table_rows(text, name)[0] for name in ("method", "nnUNetTrainer", "LightMUNet"))
    columns = ["left\\_lung DSC", "left\\_lung mIoU", "right\\_lung DSC", "right\\_lung mIoU", "average DSC"]
    assert header[:8] == ["method", "Params (M)", "MACs (G)", *columns]
    assert header[8:] == ["average mIoU", "DSC of the seeds", "seeds", "cases"]
    evaluation = find_contenders(results)[0].evaluation
    mean = f"{100 * evaluation.average('DSC'):.2f}"
    assert re.fullmatch(rf"\*\*{mean}\*\* \(\d\d\.\d\d–\d\d\.\d\d\)", stock[7])
    assert not ours[7].startswith("**")
    assert stock[1:3] == ["30.00", "40.00"] and ours[1:3] == ["7.50", "20.00"]
    averages = [100 * average for average in find_contenders(results)[0].averages_by_seed("DSC")]
    assert stock[9] == f"{min(averages):.2f}–{max(averages):.2f}"
    assert stock[10:] == ["2", "6"]
    assert "true counts" in text and "Wilcoxon" in text


def test_surface_metrics_have_columns_where_all_methods_have_them():
    results = make_results(("nnUNetTrainer", "nnUNetTrainerUNETR"))
    for run, distance in zip(results.runs, (4.0, 3.0), strict=True):
        for scores in run.evaluation["cases"].values():
            for of_class in scores.values():
                of_class["HD95_mm"] = distance
    text = results_tables(results, find_contenders(results))
    assert table_rows(text, "method")[0][9] == "average HD95 [mm]"
    assert table_rows(text, "nnUNetTrainer")[0][9] == "4.00 (4.00–4.00)"
    assert table_rows(text, "UNETR")[0][9] == "**3.00** (3.00–3.00)"


def test_many_classes_have_a_table_of_their_own():
    results = make_results(classes=tuple(f"organ{i}" for i in range(60)))
    text = results_tables(results, find_contenders(results))
    assert "<details>\n<summary>Each of the 60 classes</summary>" in text
    assert table_rows(text, "method")[0] == [
        "method",
        "Params (M)",
        "MACs (G)",
        "average DSC",
        "average mIoU",
        "seeds",
        "cases",
    ]
    assert len(table_rows(text, "organ59")) == 2 and len(table_rows(text, "organ59")[0]) == 4


def test_names_stay_text(tmp_path):
    evil = "a|b *c* <script>x</script> `d` [e](f)\n# g $h$"
    results = make_results(("nnUNetTrainer", "nnUNetTrainer" + evil), classes=("left", evil), title=evil)
    commands = (("nnUNetv2_lightm", "benchmark", "--title", "```\n"),)
    results = replace(results, commands=commands, machine={evil: {evil: evil}})
    write_report([results], tmp_path, evil)
    page_text = (tmp_path / "report.html").read_text()
    page = Page(page_text)
    assert "script" not in page.tags and not page.links
    assert page_text.count("&lt;script&gt;x&lt;/script&gt;") > 5
    assert page.headings[0] == ("h1", " ".join(evil.split()))
    assert "<code class=\"language-sh\">nnUNetv2_lightm benchmark --title $'```\\x0a'\n</code>" in page_text
    rows = re.findall(r"<tr>.*?</tr>", page_text, re.S)
    assert len({row.count("<t") for row in rows if "left" in row or "average DSC" in row}) <= 3


def test_nothing_finished_is_reported_as_such(tmp_path):
    runs = (replace(make_run("nnUNetTrainer", 0.9, complete=False), epochs=()),)
    write_report([make_results(runs=runs, calibration={}, complexity={}, machine={})], tmp_path, "Early")
    text = (tmp_path / "report.md").read_text()
    for said in (
        "no score yet",
        "No run has a finished epoch",
        "no finished epoch",
        "No case is scored",
        "do not name",
    ):
        assert said in text
    assert list((tmp_path / "figures").glob("*.png")) == []


@pytest.mark.slow
def test_a_picture_of_the_same_case_and_scores_stays_where_the_images_are_gone(tmp_path):
    results = with_images(make_results(TRAINERS[:2]), tmp_path / "data")
    gone = replace(results, runs=tuple(replace(run, predictions=None, images=None) for run in results.runs))
    write_report([results], tmp_path, "Title")
    pictures = sorted((tmp_path / "figures").glob("*_overlay_*"))
    before = [picture.read_bytes() for picture in pictures]
    write_report([gone], tmp_path, "Title")
    text = (tmp_path / "report.md").read_text()
    assert "Not pictured" not in text and all(f"({picture.relative_to(tmp_path)})" in text for picture in pictures)
    assert [picture.read_bytes() for picture in pictures] == before

    write_report([replace(gone, runs=(*gone.runs, make_run(TRAINERS[2], 0.7)))], tmp_path, "Title")
    assert "_overlay_" not in (tmp_path / "report.md").read_text()  # other scores: it may be another case


def test_missing_folders_are_said(tmp_path):
    write_report([make_results(("nnUNetTrainer",))], tmp_path, "No images")
    assert "Not pictured" in (tmp_path / "report.md").read_text()


def test_what_is_not_to_be_pictured_is_not(tmp_path):
    results = with_images(make_results(TRAINERS[:2]), tmp_path / "data")
    write_report([replace(results, not_pictured="the licence, CC BY-NC, forbids it")], tmp_path, "Title")
    text = (tmp_path / "report.md").read_text()
    assert "Not pictured: the licence, CC BY-NC, forbids it." in text and "is missing" not in text
    assert not list((tmp_path / "figures").glob("*_overlay_*"))


def test_no_comparison_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one comparison"):
        write_report([], tmp_path / "new", "Nothing")
    assert not (tmp_path / "new").exists()


def test_twenty_methods_are_told_apart():
    styles = method_styles([f"nnUNetTrainerM{i}" for i in range(20)])
    assert len({(style.color, style.dashes) for style in styles.values()}) == 20
    assert len({(style.color, style.marker) for style in styles.values()}) == 20


def test_command(tmp_path, capsys, monkeypatch):
    write_results(make_results(("nnUNetTrainer",)), tmp_path / "results.json")
    seen = {}
    monkeypatch.setattr(report, "write_report", lambda *arguments: seen.update(arguments=arguments))
    output = str(tmp_path / "out")
    assert cli(["benchmark-report", str(tmp_path / "results.json"), "-o", output, "--title", "T"]) == 0
    (loaded,), folder, title = seen["arguments"]
    assert (loaded.title, folder, title) == ("Chest X-rays, equal iterations", tmp_path / "out", "T")
    assert cli(["benchmark-report", str(tmp_path / "none.json"), "-o", output]) == 1
    assert "none.json" in capsys.readouterr().err

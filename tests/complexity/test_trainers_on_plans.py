"""Trainers on a configuration: found, counted and measured as nnU-Net would build and run them."""

from __future__ import annotations

import csv
import io
import json
from types import SimpleNamespace

import pytest
import torch
from nnunetv2.run.run_training import get_trainer_from_args
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from nnunetv2_lightm import cli
from nnunetv2_lightm.complexity import measure_trainer, measurement
from nnunetv2_lightm.complexity.errors import PlansError
from nnunetv2_lightm.complexity.measurement import FORWARD, TRAINING, Measurement, measure
from nnunetv2_lightm.complexity.plans import build_network, find_trainer, read_configuration
from nnunetv2_lightm.complexity.trainer_report import FORMATS, TrainerRow, count_trainer, trainer_report
from nnunetv2_lightm.measure.timing import Effort, Spread
from nnunetv2_lightm.networks import LightMUNet

OURS = "nnUNetTrainerLightMUNet"


def read(configuration="3d_lowres", plans="nnUNetPlans", dataset="901"):
    return read_configuration(dataset, configuration, plans)


def test_network_is_the_one_that_predicts(planned_dataset):
    planned = read()
    assert (planned.dataset, planned.sample_shape, planned.num_outputs) == ("Dataset901_Small", (2, 4, 16, 16), 3)
    expected = LightMUNet(2, 3, spatial_dims=3, strides=planned.configuration.pool_op_kernel_sizes)
    found = count_trainer(find_trainer(f"{OURS}_2epochs"), planned)
    assert found.parameters == sum(p.numel() for p in expected.parameters())
    assert found.macs > found.mamba_macs > 0 and found.scan_flops > 0


def test_network_of_a_cascade_sees_labels_as_channels(planned_dataset):
    planned = read("3d_cascade_fullres")
    assert planned.sample_shape == (4, 4, 16, 16)
    first, second = (count_trainer(nnUNetTrainer, p) for p in (read(), planned))
    assert second.parameters - first.parameters == 2 * 4 * 27


def test_trainer_of_an_older_nnunet(planned_dataset):
    class OldTrainer(nnUNetTrainer):
        @staticmethod
        def build_network_architecture(
            architecture_class_name,
            arch_init_kwargs,
            arch_init_kwargs_req_import,
            num_input_channels,
            num_output_channels,
            enable_deep_supervision=True,
        ):
            return get_network_from_plans(
                architecture_class_name,
                arch_init_kwargs,
                arch_init_kwargs_req_import,
                num_input_channels,
                num_output_channels,
                deep_supervision=enable_deep_supervision,
            )

    new, old = (build_network(trainer, read("2d")) for trainer in (nnUNetTrainer, OldTrainer))
    assert str(new) == str(old)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dataset": "902"}, "Could not find a dataset with the ID 902"),
        ({"dataset": "Liver"}, "Your input: Liver"),
        ({"dataset": "Dataset902_No"}, "no plans .*nnUNetPlans.json; there are: none.*nnUNetv2_plan_experiment"),
        ({"plans": "OtherPlans"}, "no plans .*OtherPlans.json; there are: nnUNetPlans"),
        (
            {"configuration": "3d_fullres"},
            "no configuration '3d_fullres'; there are: 2d, 3d_lowres, ",
        ),
    ],
)
def test_what_is_not_there_is_named(planned_dataset, given, message):
    with pytest.raises(PlansError, match=message):
        read(**given)


def test_no_folder_of_preprocessed_data(planned_dataset, monkeypatch):
    monkeypatch.delenv("nnUNet_preprocessed")
    with pytest.raises(PlansError, match="nnUNet_preprocessed is not defined"):
        read(dataset="Dataset901_Small")


def test_no_such_trainer(planned_dataset, capsys):
    with pytest.raises(PlansError, match="nnUNetTrainerNobody"):
        find_trainer("nnUNetTrainerNobody")
    assert capsys.readouterr().out == ""


@pytest.fixture
def apart(planned_dataset, tmp_path, monkeypatch):
    """Sets nnU-Net's folders to those that a measurement makes for its process; runs quickly."""

    def enter(configuration):
        planned = read(configuration)
        root = tmp_path / "apart"
        root.mkdir()
        for variable, folder in measurement._folders(root, planned).items():
            monkeypatch.setenv(variable, folder)
        return planned

    monkeypatch.setattr(measure_trainer, "EFFORT", Effort(0.5, least_rounds=2, most_rounds=2))
    return enter


@pytest.mark.parametrize(
    ("trainer", "configuration", "work"),
    [
        ("nnUNetTrainer", "2d", TRAINING),
        ("nnUNetTrainer", "3d_cascade_fullres", TRAINING),
        ("nnUNetTrainer", "3d_lowres", FORWARD),
        (OURS, "2d", TRAINING),
    ],
)
def test_measured(apart, planned_dataset, trainer, configuration, work):
    before = planned_dataset.files()
    apart(configuration)
    found = measure_trainer.measure_here(trainer, "Dataset901_Small", configuration, "nnUNetPlans", work, "cpu")
    assert 0 < found.seconds.median < 60 and found.seconds.samples >= 2
    assert (found.transient_mib is None) == (found.not_measured is not None)
    assert found.setting.startswith("cpu, ")
    # The user's own folders stay as they were.
    assert {path for path in planned_dataset.files() if path.parts[0] != "apart"} == before


@pytest.mark.parametrize(
    ("labels", "more", "channels"),
    [
        ({"background": 0, "liver": 1, "tumor": 2}, {}, 1),
        ({"background": 0, "whole": [1, 2], "core": 2}, {"regions_class_order": [1, 2]}, 2),
        ({"background": 0, "liver": 1, "ignore": 2}, {}, 1),
    ],
    ids=["labels", "regions", "ignore"],
)
def test_batch_is_what_the_trainer_takes(apart, planned_dataset, labels, more, channels):
    planned_dataset.set_labels(labels, **more)
    apart("2d")
    trainer = get_trainer_from_args("Dataset901_Small", "2d", 0, "nnUNetTrainer", device=torch.device("cpu"))
    trainer.initialize()
    batch = measure_trainer.random_batch(trainer)
    assert batch["data"].shape == (1, 2, 16, 24)
    assert [tuple(target.shape) for target in batch["target"]] == [(1, channels, 16, 24), (1, channels, 8, 12)]
    assert torch.isfinite(torch.as_tensor(trainer.train_step(batch)["loss"]))


@pytest.fixture
def process(monkeypatch):
    """What the measuring process does, in its place; returns the environments and requests of the calls."""
    calls = []

    def replace(returncode, stdout="", stderr=""):
        def run(command, *, env, **_):
            calls.append((env, json.loads(command[-1])))
            return SimpleNamespace(returncode=returncode, stdout=stdout, stderr=stderr)

        monkeypatch.setattr(measurement.subprocess, "run", run)
        return calls

    return replace


def test_measuring_process_gets_folders_of_its_own_which_go_with_it(planned_dataset, process):
    found = {"seconds": vars(Spread(1.0, 0.9, 1.1, 3)), "transient_mib": 12.5, "not_measured": None, "setting": "cpu"}
    calls = process(0, f"nnU-Net says hello\n{json.dumps(found)}\n")
    assert measure(OURS, read("2d"), FORWARD, "cpu") == Measurement(Spread(1.0, 0.9, 1.1, 3), 12.5, None, "cpu")
    ((environment, request),) = calls
    assert request["trainer"] == OURS and request["work"] == FORWARD
    folders = [environment[name] for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")]
    assert not any(folder.startswith(str(planned_dataset.root)) for folder in folders)


@pytest.mark.parametrize(
    ("code", "stderr", "reason"),
    [
        (1, "Traceback ...\nRuntimeError: no NVIDIA driver\n", "RuntimeError: no NVIDIA driver"),
        (-9, "", "the process was killed; is there enough memory?"),
        (2, "", "no message"),
    ],
)
def test_measurement_that_fails_says_why(planned_dataset, process, code, stderr, reason):
    process(code, stderr=stderr)
    assert measure("nnUNetTrainer", read("2d"), TRAINING, "cpu") == Measurement(None, None, reason, None)


def count_only(form):
    trainers = ["nnUNetTrainer", OURS]
    return trainer_report(trainers, "901", "2d", "nnUNetPlans", device=None, output_format=form)


def test_report_of_counts(planned_dataset):
    markdown = count_only("markdown").splitlines()
    assert markdown[0] == "Dataset901_Small, nnUNetPlans, 2d: patch 16x24, input channels: 2, output channels: 3"
    assert [line.split("|")[1].strip() for line in markdown[2:6:1] if "Trainer" in line] == ["nnUNetTrainer", OURS]
    assert "**measured**" not in "\n".join(markdown)
    lines = list(csv.DictReader(io.StringIO(count_only("csv"))))
    content = json.loads(count_only("json"))["trainers"]
    assert [line["trainer"] for line in lines] == [record["trainer"] for record in content] == ["nnUNetTrainer", OURS]
    for line, record in zip(lines, content):
        assert int(line["true_macs_sample"]) == record["true_macs_sample"] > 0
        assert record["measured"] == {}


def test_report_of_measurements(planned_dataset):
    planned = read("2d")
    measured = {
        FORWARD: Measurement(Spread(0.1234, 0.1, 0.2, 5), 100.0, None, "cpu, 2 threads"),
        TRAINING: Measurement(Spread(0.5, 0.4, 0.6, 3), None, "needs Linux", "cpu, 2 threads"),
    }
    failed = Measurement(None, None, "RuntimeError: no", None)
    true = count_trainer(find_trainer(OURS), planned)
    rows = [TrainerRow(OURS, true, measured), TrainerRow("Other", true, dict.fromkeys(measured, failed))]

    markdown = FORMATS["markdown"](planned, rows).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in markdown if line.startswith("|")]
    assert cells[0][-4:] == ["forward, s", "forward, MiB", "training step, s", "training step, MiB"]
    assert [row[-4:] for row in cells[2:]] == [["0.123", "100", "0.5", "-"], ["-", "-", "-", "-"]]
    assert markdown[-3:] == [
        f"- **not measured**: memory of {OURS}, training step: needs Linux",
        "- **not measured**: time and memory of Other, forward: RuntimeError: no",
        "- **not measured**: time and memory of Other, training step: RuntimeError: no",
    ]
    assert "cpu, 2 threads." in markdown[-4]

    ours, other = csv.DictReader(io.StringIO(FORMATS["csv"](planned, rows)))
    assert (ours["training_seconds"], ours["forward_transient_mib"], ours["training_transient_mib"]) == (
        "0.5",
        "100.0",
        "",
    )
    assert other["forward_seconds"] == ""
    ours, other = json.loads(FORMATS["json"](planned, rows))["trainers"]
    assert ours["measured"][FORWARD]["seconds"] == {"median": 0.1234, "q1": 0.1, "q3": 0.2, "samples": 5}
    assert other["measured"][FORWARD]["not_measured"] == "RuntimeError: no"


@pytest.mark.end_to_end
def test_command_measures_in_processes_of_its_own(planned_dataset, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = planned_dataset.files()
    assert cli.main(["complexity", "-tr", OURS, "-d", "901", "-c", "2d", "--format", "json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)["trainers"]
    for work in (FORWARD, TRAINING):
        assert record["measured"][work]["seconds"]["median"] > 0
        assert record["measured"][work]["setting"].startswith("cpu, 1 threads")
    assert planned_dataset.files() == before

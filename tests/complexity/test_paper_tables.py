"""Tables 1, 2 and 3 of the paper: every number that it prints, and the full counts."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import logging

import pytest
import torch
from torch import nn

from nnunetv2_lightm.complexity.claims import ClaimKind
from nnunetv2_lightm.complexity.errors import ThopMissing
from nnunetv2_lightm.complexity.nnunet_network import plain_conv_unet
from nnunetv2_lightm.complexity.paper_convention import paper_count
from nnunetv2_lightm.complexity.paper_report import as_csv, as_json, as_markdown
from nnunetv2_lightm.complexity.paper_study import count_tables, judge_claims
from nnunetv2_lightm.complexity.paper_tables import FIRST, HEAD, TABLES, TEXT
from nnunetv2_lightm.networks import LightMUNetReleased

pytestmark = pytest.mark.slow  # counting all networks takes a quarter of a minute

# thop's parameters, its GMACs for the batch, true parameters, true GMACs for a sample.
EXPECTED = {
    (1, "nnU-Net"): (88_621_199, "7240.26", 31_196_399, "477.37"),
    (1, "SegResNet"): (18_789_315, "1158.30", 18_796_035, "579.15"),
    (1, "UNETR"): (92_617_971, "391.35", 93_011_187, "175.99"),
    (1, "SwinUNETR"): (61_989_027, "1570.32", 62_186_757, "762.89"),
    (1, "U-Mamba"): (173_533_071, "18057.20", 58_407_567, "985.41"),
    (1, FIRST): (1_865_987, "457.62", 6_150_168, "352.96"),
    (1, HEAD): (731_582, "60.77", 5_015_766, "154.54"),
    (1, TEXT): (None, None, 2_523_875, "69.26"),
    (2, "nnU-Net"): (126_564_526, "5594.98", 46_325_134, "59.76"),
    (2, "SegResNet"): (6_292_386, "748.96", 6_299_106, "62.25"),
    (2, "UNETR"): (87_512_322, "1267.53", 88_298_754, "119.81"),
    (2, "SwinUNETR"): (25_124_114, "909.26", 25_139_324, "71.13"),
    (2, "U-Mamba"): (244_102_958, "12521.27", 86_148_014, "117.01"),
    (2, FIRST): (1_091_810, "267.19", 5_375_991, "61.50"),
    (2, HEAD): (727_581, "102.26", 5_011_765, "47.75"),
    (2, TEXT): (None, None, 2_462_850, "21.05"),
    (3, "VSSM -> Conv3"): (18_789_315, "1513.44", 18_796_035, "756.72"),
    (3, "VSSM -> Self-Attention"): (3_438_851, "470.50", 4_220_952, "414.10"),
    (3, "w/o adjustment factors"): (1_865_987, "457.62", 6_150_168, "352.96"),
    (3, "w/o residual connections"): (1_865_987, "457.62", 6_150_168, "352.96"),
    (3, FIRST): (1_865_987, "457.62", 6_150_168, "352.96"),
}
EXACT_MACS = {(1, FIRST): 457_615_343_616, (2, FIRST): 267_185_553_408}


@pytest.fixture(scope="module")
def counted():
    for library, extra in (("thop", "paper"), ("monai", "baselines")):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed: pip install '.[{extra}]'")
    return {table.table.number: table for table in count_tables()}


def giga(count):
    return f"{count / 1e9:.2f}"


def test_every_row_has_an_expectation():
    assert {(table.number, row.model) for table in TABLES for row in table.rows} == EXPECTED.keys()


@pytest.mark.parametrize("key", EXPECTED, ids=lambda key: f"{key[0]}-{key[1]}")
def test_row(counted, key):
    number, model = key
    row = counted[number][model]
    paper_parameters, paper_gmacs, true_parameters, true_gmacs = EXPECTED[key]
    assert (row.true.parameters, giga(row.true.macs)) == (true_parameters, true_gmacs)
    if paper_parameters is None:
        assert row.paper is None
    else:
        assert (row.paper.parameters, giga(row.paper.macs)) == (paper_parameters, paper_gmacs)
    if key in EXACT_MACS:
        assert row.paper.macs == EXACT_MACS[key]


def test_all_that_the_paper_prints_is_reproduced_but_one_misprint(counted):
    wrong = [
        (number, row.row.model, holds)
        for number, table in counted.items()
        for row in table.rows
        for holds in [(row.reproduces_params, row.reproduces_gflops)]
        if holds not in ((True, True), (None, None))
    ]
    assert wrong == [(1, "UNETR", (True, False))]
    unetr = counted[1]["UNETR"]
    assert float(unetr.row.gflops) - float(giga(unetr.paper.macs)) == pytest.approx(1500.00)


def test_scans(counted):
    """9 L D N + 2 L D for each of the released layers."""
    found = {number: giga(counted[number][FIRST].true.scan_flops) for number in (1, 2)}
    assert found == {1: "91.86", 2: "18.98"}
    assert all(counted[number][HEAD].true.scan_flops == counted[number][FIRST].true.scan_flops for number in (1, 2))
    assert counted[3]["VSSM -> Conv3"].true.scan_flops == 0


def test_self_attention_without_the_mamba_that_the_encoder_keeps(counted):
    true = counted[3]["VSSM -> Self-Attention"].true
    assert giga(true.macs - true.mamba_macs) == "301.45"
    # 8 layers at 16x16x16 voxels and 256 channels: queries with keys, weights with values.
    attention = 8 * 2 * (16**3) ** 2 * 256
    layer = 4096 * (256 * 1024 + 4 * 512 + 512 * 48 + 16 * 512 + 512 * 256) + 3 * 4 * 512
    first = counted[3][FIRST].true.macs
    assert true.macs == first - 8 * layer + 8 * 4096 * 256 * 768 + attention


def test_claims(counted):
    verdicts = {
        (v.claim.table, v.claim.rival, v.claim.about_parameters): v
        for v in judge_claims(list(counted.values()))
        if v.claim.kind is ClaimKind.RATIO
    }
    parameters = {n: verdicts[n, "nnU-Net", True].true for n in (1, 2)}
    computation = {n: verdicts[n, "nnU-Net", False].true for n in (1, 2)}
    assert [f"{parameters[n][FIRST]:.1f}" for n in (1, 2)] == ["5.1", "8.6"]
    assert [f"{parameters[n][HEAD]:.1f}" for n in (1, 2)] == ["6.2", "9.2"]
    assert [f"{computation[n][FIRST]:.2f}" for n in (1, 2)] == ["1.35", "0.97"]
    assert [f"{computation[1][HEAD]:.1f}", f"{computation[2][HEAD]:.2f}"] == ["3.1", "1.25"]


def test_claims_follow_from_the_numbers_that_the_paper_prints(counted):
    for verdict in judge_claims(list(counted.values())):
        printed = float(verdict.claim.printed.rstrip("x%"))
        value = verdict.from_tables * (1 if verdict.claim.kind is ClaimKind.RATIO else 100)
        # Rounded or, once, cut off.
        digits = len(verdict.claim.printed.rstrip("x%").partition(".")[2])
        assert abs(value - printed) < 10**-digits, verdict.claim


def test_documentation_is_what_the_command_prints(counted, repository):
    text = as_markdown(list(counted.values()), list(judge_claims(list(counted.values()))))
    assert (repository / "docs" / "complexity.md").read_text(encoding="utf-8") == text
    assert "UNETR's GFLOPs are a misprint: 1891.35, 1500.00 more than the 391.35 of its convention." in text


def test_csv_and_json_hold_the_same_numbers(counted):
    tables = list(counted.values())
    verdicts = list(judge_claims(tables))
    lines = list(csv.DictReader(io.StringIO(as_csv(tables, verdicts))))
    content = json.loads(as_json(tables, verdicts))
    records = [record for table in content["tables"] for record in table["rows"]]
    assert len(lines) == len(records) == len(EXPECTED)
    for line, record in zip(lines, records):
        assert line == {key: "" if value is None else str(value) for key, value in record.items()}
    assert [claim["printed"] for claim in content["claims"]][:2] == ["116x", "21x"]


def require_thop_itself():
    pytest.importorskip("thop", reason="thop is not installed: pip install '.[paper]'")


def test_nnunet_is_counted_several_times():
    """4 E + 2 D + T + S parameters, 16 E + 4 D + T + S MACs."""
    require_thop_itself()
    with torch.device("meta"):
        network = plain_conv_unet(2, 3, 2, deep_supervision=True)
    decoder = network.decoder
    parts = (network.encoder, decoder.stages, decoder.transpconvs, decoder.seg_layers)
    macs = dict.fromkeys(parts, 0)

    def add(part):
        def hook(module, inputs, output):
            if isinstance(module, nn.InstanceNorm2d):
                macs[part] += 4 * output.numel()
            else:  # of a transposed convolution thop lets each output voxel use the whole kernel
                macs[part] += output.numel() * inputs[0].shape[1] * module.weight[0, 0].numel()

        return hook

    handles = [
        module.register_forward_hook(add(part))
        for part in parts
        for module in set(part.modules())
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.InstanceNorm2d))
    ]
    network(torch.empty(2, 3, 256, 256, device="meta"))
    for handle in handles:
        handle.remove()
    e, d, t, s = (sum(p.numel() for p in part.parameters()) for part in parts)
    found = paper_count(network, (2, 3, 256, 256))
    assert found.parameters == 4 * e + 2 * d + t + s
    e, d, t, s = macs.values()
    assert found.macs == 16 * e + 4 * d + t + s


def test_thop_is_quiet(caplog):
    require_thop_itself()
    with torch.device("meta"):
        network = nn.Sequential(nn.Upsample(scale_factor=2, mode="trilinear"), nn.Conv3d(1, 1, 1))
    with caplog.at_level(logging.DEBUG):
        assert paper_count(network, (1, 1, 2, 2, 2)).macs == 64
    assert caplog.records == []


def test_mamba_counts_nothing():
    require_thop_itself()
    with torch.device("meta"):
        network = LightMUNetReleased(1, 2, spatial_dims=2, features=8)
    mamba = sum(p.numel() for name, p in network.named_parameters() if ".mamba." in name)
    free = sum(p.numel() for name, p in network.named_parameters() if name.endswith("skip_scale"))
    norms = sum(p.numel() for m in network.modules() if isinstance(m, nn.GroupNorm) for p in m.parameters())
    all_of_it = sum(p.numel() for p in network.parameters())
    assert mamba > 0 and free > 0 and norms > 0
    assert paper_count(network, (1, 1, 16, 16)).parameters == all_of_it - mamba - free - norms


@pytest.mark.parametrize("installed", [None, "0.1.2"])
def test_another_thop_is_refused(monkeypatch, installed):
    def version(package):
        if installed is None:
            raise importlib.metadata.PackageNotFoundError(package)
        return installed

    monkeypatch.setattr("importlib.metadata.version", version)
    with pytest.raises(ThopMissing, match=r"pip install thop==0\.1\.1\.post2209072238"):
        paper_count(nn.Linear(2, 2).to("meta"), (1, 2))

"""``nnUNetv2_lightm export --web``: what is written and what is refused; test_browser.py opens the page."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from nnunetv2_lightm import cli, extras
from nnunetv2_lightm.deploy.bundle import pipeline_of
from nnunetv2_lightm.deploy.web import engine as engine_room
from nnunetv2_lightm.deploy.web.page import PAGE, is_page, joined, web_page

from ...model_folders import write_model_folder
from ...prediction import write_images
from .conftest import HOSTILE

ENGINES = {"engine": b"\0asm, or so", "engine-fused": b"\0asm, fused"}


@pytest.fixture
def compiled(monkeypatch):
    """Compiling takes a minute and is no matter here."""
    monkeypatch.setattr(engine_room, "web_engines", lambda say: ENGINES)


def export(*arguments) -> int:
    return cli.main(["export", "--web", *map(str, arguments)])


def embedded(page: str, name: str) -> bytes:
    text = re.search(rf'<script type="text/plain" id="{name}">(.*?)</script>', page, re.DOTALL)[1]
    return gzip.decompress(base64.b64decode(text, validate=True))


def test_page_holds_the_model_and_the_engine(compiled, tmp_path, capsys):
    folder = write_model_folder(tmp_path / "model", configuration="2d", spacing=(1.0, 1.0), patch_size=(16, 16))
    write_images(tmp_path / "images", 1, shape=(20, 24))
    options = ("--check-images", tmp_path / "images", "--float32")
    assert export(folder, tmp_path / "model.html", *options) == 0
    assert (tmp_path / "model.html").as_uri() in capsys.readouterr().out
    page = (tmp_path / "model.html").read_text(encoding="utf-8")
    assert {name: embedded(page, name) for name in ENGINES} == ENGINES
    assert pipeline_of(embedded(page, "bundle"))["source"]["dataset"] == "Dataset901_Drawn"
    assert "Dataset901_Drawn 2d" in re.search("<title>(.*)</title>", page)[1]


def test_a_bundle_becomes_the_same_page(compiled, bundle_of, tmp_path, capsys):
    bundle, _ = bundle_of("picture")
    assert export(bundle, tmp_path / "a.html") == 0
    assert embedded((tmp_path / "a.html").read_text(encoding="utf-8"), "bundle") == bundle.read_bytes()
    first = (tmp_path / "a.html").read_bytes()
    assert export(bundle, tmp_path / "a.html") == 1 and "--overwrite" in capsys.readouterr().err
    assert export(bundle, tmp_path / "a.html", "--overwrite") == 0 and (tmp_path / "a.html").read_bytes() == first


def test_a_damaged_bundle_is_refused(compiled, bundle_of, tmp_path, capsys):
    content = bundle_of("picture")[0].read_bytes()
    for name, damaged, said in (
        ("changed", content[:-9] + bytes([content[-9] ^ 1]) + content[-8:], "is damaged: its checksum"),
        ("another step", content.replace(b'\\"step\\": 0.5', b'\\"step\\": 0.6'), "is damaged: its checksum"),
        ("short", content[:-100], "is truncated or damaged"),
        ("text", b"no model", "is not a bundle"),
        ("earlier", content.replace(b'"version":"2"', b'"version":"1"'), "version 1; this program reads version 2"),
        ("later", content.replace(b'"version":"2"', b'"version":"9"'), "is of format version 9"),
    ):
        assert damaged != content
        (tmp_path / name).write_bytes(damaged)
        assert export(tmp_path / name, tmp_path / "out.html") == 1
        error = capsys.readouterr().err
        assert said in error and str(tmp_path / name) in error
        assert not (tmp_path / "out.html").exists()


def changed_bundle(bundle: Path, change) -> bytes:
    """A bundle of a right checksum whose header, a dict with the pipeline as one, ``change`` has changed."""
    content = bundle.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    metadata = header["__metadata__"]
    pipeline = json.loads(metadata["pipeline"])
    data = change(header, pipeline, data) or data
    metadata["pipeline"] = json.dumps(pipeline)
    metadata["sha256"] = "0" * 64
    text = json.dumps(header, separators=(",", ":")).encode()
    whole = struct.pack("<Q", len(text)) + text + data
    return whole.replace(b"0" * 64, hashlib.sha256(whole).hexdigest().encode(), 1)


KEYS = (
    *("name", "network", "input", "preprocessing", "inference", "output", "source", "citation", "network.pooling"),
    *("input.channels", "input.reader", "preprocessing.spacing_mm", "preprocessing.resampling_logits.order_z"),
    *("inference.mirroring_axes", "output.labels", "output.regions_class_order", "source.trainer"),
)


@pytest.mark.parametrize("key", KEYS)
def test_a_bundle_that_lacks_what_the_page_reads_is_refused(key, compiled, bundle_of, tmp_path, capsys):
    *above, last = key.split(".")

    def without(_, pipeline, __):
        for name in above:
            pipeline = pipeline[name]
        del pipeline[last]

    (tmp_path / "a.lightm").write_bytes(changed_bundle(bundle_of("picture")[0], without))
    assert export(tmp_path / "a.lightm", tmp_path / "out.html") == 1
    error = capsys.readouterr().err
    assert f"a.lightm: its pipeline: lacks {last}" in error and "export the model again" in error
    assert not (tmp_path / "out.html").exists()


@pytest.mark.parametrize(
    "place, value, said",
    [
        (("name",), 3, "name is 3"),
        (("network", "type"), "UNet", "network.type is 'UNet'"),
        (("network", "pooling"), [[2, 2]], "network.pooling has 1; the network has 3"),
        (("inference", "patch_size"), [32, 32, 32], "inference.patch_size has 3; the network has 2"),
        (("input", "channels"), [], "input.channels has 0; the network has 1"),
        (("output", "labels"), {"organ": "one"}, "output.labels.organ is 'one'"),
        (("output", "regions_class_order"), [1, 70000, 2], "regions_class_order[1] is 70000"),
        (("citation",), "a text", "citation is 'a text'"),
    ],
)
def test_a_bundle_of_other_values_is_refused(place, value, said, compiled, bundle_of, tmp_path, capsys):
    def change(_, pipeline, __):
        *above, last = place
        for name in above:
            pipeline = pipeline[name]
        pipeline[last] = value

    (tmp_path / "a.lightm").write_bytes(changed_bundle(bundle_of("picture")[0], change))
    assert export(tmp_path / "a.lightm", tmp_path / "out.html") == 1
    assert said in capsys.readouterr().err


def test_weights_of_another_type_are_refused(compiled, bundle_of, tmp_path, capsys):
    def halved(header, _, __):
        entry = header["fold_0/stem.pointwise.bias"]
        entry.update(dtype="BF16", shape=[2 * size for size in entry["shape"]])

    (tmp_path / "a.lightm").write_bytes(changed_bundle(bundle_of("picture")[0], halved))
    assert export(tmp_path / "a.lightm", tmp_path / "out.html") == 1
    assert "the tensor fold_0/stem.pointwise.bias is BF16; needed: F16 or F32" in capsys.readouterr().err


def test_the_model_is_read_before_anything_is_compiled(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(engine_room, "web_engines", lambda say: pytest.fail("the engine was compiled"))
    (tmp_path / "text").write_bytes(b"no model")
    for model, said in (("text", "is not a bundle"), ("nowhere", "plans.json")):
        assert export(tmp_path / model, tmp_path / "out.html") == 1
        assert said in capsys.readouterr().err


def test_what_is_there_is_not_replaced(compiled, bundle_of, tmp_path, capsys):
    bundle, _ = bundle_of("picture")
    (tmp_path / "mine.html").write_text("<!DOCTYPE html><p>mine")
    assert export(bundle, tmp_path / "mine.html", "--overwrite") == 1
    assert "was not written by this command" in capsys.readouterr().err
    assert export(bundle, bundle, "--overwrite") == 1
    assert (tmp_path / "mine.html").read_text() == "<!DOCTYPE html><p>mine" and bundle.read_bytes()[8:9] == b"{"


def test_nothing_half_written_stays(compiled, bundle_of, tmp_path, monkeypatch, capsys):
    bundle, _ = bundle_of("picture")

    def full(self, *_, **__):
        Path(self).touch()
        raise OSError(28, "No space left on device", str(self))

    (tmp_path / "out").mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        assert export(bundle, tmp_path / "out" / "a.html") != 0
    assert "No space left" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_zig_that_is_missing_is_named_with_the_command(bundle_of, tmp_path, monkeypatch, capsys):
    found = extras.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "ziglang" else found(name))
    assert export(bundle_of("picture")[0], tmp_path / "a.html") != 0
    said = capsys.readouterr().err
    assert "export --web` needs ziglang" in said and 'python -m pip install "ziglang' in said
    assert not (tmp_path / "a.html").exists()


def test_names_of_others_are_text_on_the_page():
    page = web_page(f"{HOSTILE}</script>$policy", b"bundle", ENGINES)
    assert HOSTILE not in page and "&lt;img src=x onerror=alert(1)&gt;&lt;/script&gt;$policy" in page
    assert page.count("</script>") == 5


def test_the_policy_allows_this_script_and_no_connection():
    page = web_page("a model", b"bundle", ENGINES)
    policy = re.search('http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'" and rules["connect-src"] == "'none'" and "http" not in policy
    for rule, content in (
        ("script-src", re.findall("<script>(.*?)</script>", page, re.DOTALL)[0]),
        ("style-src", re.search("<style>(.*?)</style>", page, re.DOTALL)[1]),
    ):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in rules[rule].split()
    assert "https://" not in page and "http://" not in page


def test_every_module_is_on_the_page():
    scripts = joined("main") + joined("worker")
    for module in PAGE.glob("*.mjs"):
        assert f"const {module.stem}_module" in scripts
    assert not re.search(r"^(import|export) ", scripts, re.MULTILINE)


def test_pages_are_told_from_other_files():
    assert is_page(web_page("x", b"", ENGINES).encode())
    assert not is_page(b"<!DOCTYPE html><title>export --web</title>") and not is_page(b"")


def test_the_engine_is_compiled_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(engine_room, "require_libraries", lambda *_: None)
    monkeypatch.setattr(engine_room, "version", lambda _: "0.15")
    commands, said = [], []

    def compile_(command, **_):
        commands.append(command)
        if len(commands) == 2:
            return SimpleNamespace(returncode=1, stderr="web.cpp:1: error: no such thing")
        assert {"-fno-exceptions", "-msimd128"} <= set(command)
        Path(command[-1]).write_bytes(ENGINES["engine-fused" if "-mrelaxed-simd" in command else "engine"])
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", compile_)
    with pytest.raises(engine_room.ExportError, match="no such thing"):
        engine_room.web_engines(said.append)
    assert [path.name.split("-")[0] for path in (tmp_path / "nnunetv2_lightm").iterdir()] == ["engine"]
    assert [engine_room.web_engines(said.append) for _ in range(2)] == [ENGINES, ENGINES]
    assert len(commands) == 3 and len(said) == 2 and commands[0][0] == sys.executable
    monkeypatch.setattr(engine_room, "version", lambda _: "0.16")
    assert engine_room.web_engines(said.append) == ENGINES and len(commands) == 5


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(engine_room, "require_libraries", lambda *_: None)
    monkeypatch.setattr(engine_room, "version", lambda _: "0.15")
    with pytest.raises(engine_room.ExportError, match="XDG_CACHE_HOME=FOLDER"):
        engine_room.web_engines(lambda _: None)

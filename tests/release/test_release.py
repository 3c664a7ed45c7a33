"""What is checked before a release, each check with the fault that it is for."""

from __future__ import annotations

import ctypes
import platform
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path):
    """A repository that is ready to release 1.2.0."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## [Unreleased]\n\n## [1.2.0] - 2026-01-31\n\n- New.\n\n## [1.1.0] - 2025-12-01\n\n- Old.\n"
    )
    (tmp_path / "CITATION.cff").write_text("cff-version: 1.2.0\nversion: 1.2.0\n")
    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime" / "pyproject.toml").write_text('[project]\nversion = "1.2.0"\n')
    for command in (
        "init --quiet",
        "add --all",
        "-c user.name=a -c user.email=a@b commit --quiet --message=all",
    ):
        subprocess.run(["git", *command.split()], cwd=tmp_path, check=True)
    return tmp_path


def change(path: Path, before: str, after: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")


def test_a_checkout_that_is_ready(checkout):
    from release import release

    assert release.faults_of_version(checkout) == []
    assert release.faults_of_repository(checkout) == []


@pytest.mark.parametrize(
    ("file", "before", "after", "said"),
    [
        ("pyproject.toml", "1.2.0", "1.3.0", "newest version is 1.2.0"),
        ("CHANGELOG.md", " - 2026-01-31", "", "gives 1.2.0 no date"),
        ("CHANGELOG.md", "[Unreleased]\n", "[Unreleased]\n\n- Something.\n", "entries under Unreleased"),
        ("CITATION.cff", "\nversion: 1.2.0", "\nversion: 1.1.0", "CITATION.cff's version is 1.1.0"),
        ("runtime/pyproject.toml", "1.2.0", "1.1.9", "runtime/pyproject.toml's version is 1.1.9"),
    ],
)
def test_what_disagrees_with_the_version_is_named(checkout, file, before, after, said):
    from release import release

    change(
        checkout / file,
        "\nversion: 1.2.0" if file == "CITATION.cff" else before,
        f"\n{after}"[file != "CITATION.cff" :],
    )
    assert any(said in fault for fault in release.faults_of_version(checkout))


def test_uncommitted_changes_and_a_tag_that_exists(checkout):
    from release import release

    subprocess.run(["git", "tag", "v1.2.0"], cwd=checkout, check=True)
    (checkout / "new.txt").write_text("not committed")
    faults = "\n".join(release.faults_of_repository(checkout))
    assert "uncommitted" in faults and "v1.2.0 exists" in faults


def test_this_version_is_the_same_everywhere():
    from release import release

    version = release.version_of(ROOT)
    assert re.search(rf"^version: {re.escape(version)}$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.M)


def test_an_unknown_platform_names_the_known_ones():
    from release import platforms

    with pytest.raises(ValueError, match="no wheel is built for win32; expected one of manylinux2014_x86_64"):
        platforms.platform("win32")


def test_every_target_has_the_flags_and_the_name_of_its_system():
    import native_build
    from release.platforms import PLATFORMS
    from release.products import PRODUCTS

    names = {target.tag: [product.library_name(target.system) for product in PRODUCTS] for target in PLATFORMS}
    assert names["manylinux2014_aarch64"] == ["_native.so", "_engine.so"]
    assert names["macosx_11_0_arm64"] == ["_native.dylib", "_engine.dylib"]
    assert names["win_amd64"] == ["_native.dll", "_engine.dll"]
    assert "-mavx512f" in native_build.flags("kernels_avx512.cpp", x86_64=True)
    assert "-mavx512f" not in native_build.flags("kernels_avx512.cpp", x86_64=False)


def test_sources_are_compiled_in_parallel_and_stay_in_order():
    import native_build

    both = threading.Barrier(2, timeout=60)  # a single one would wait for ever

    def compile_one(source):
        both.wait()
        return f"{source}.o"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native_build.os, "cpu_count", lambda: 2)
        assert native_build.compile_each(compile_one, ["a", "b"]) == ["a.o", "b.o"]
    with pytest.raises(ZeroDivisionError):
        native_build.compile_each(lambda source: 1 // source, [1, 0])


class TestLibraries:
    """What libraries import and export; those of `make wheels` where they were built."""

    def built(self):
        from release.libraries import FOLDER
        from release.platforms import PLATFORMS
        from release.products import PRODUCTS

        every = [(target, product) for target in PLATFORMS for product in PRODUCTS]
        paths = [
            (FOLDER / target.tag / product.library_name(target.system), target, product.exported)
            for target, product in every
        ]
        return [arguments for arguments in paths if arguments[0].exists()]

    def test_the_built_ones_need_the_system_alone(self):
        pytest.importorskip("lief")
        built = self.built()
        if not built:
            pytest.skip("no libraries in build/zig: `make wheels` builds them")
        from release.inspect_library import faults

        assert [fault for arguments in built for fault in faults(*arguments)] == []

    @pytest.mark.skipif(
        sys.platform != "linux" or platform.machine() != "x86_64", reason="loads the library for Linux on x86-64"
    )
    def test_the_one_for_this_processor_uses_its_instructions(self):
        """Zig's own answer to what the processor can do is no: the library has to ask for itself."""
        built = {(target.tag, path.stem): path for path, target, _ in self.built()}
        wanted = "manylinux2014_x86_64", "_native"
        if wanted not in built:
            pytest.skip("no library in build/zig: `make wheels` builds it")
        instruction_set = ctypes.CDLL(str(built[wanted])).nnunetv2_lightm_instruction_set
        instruction_set.restype, instruction_set.argtypes = ctypes.c_char_p, [ctypes.c_int64]
        names = [name.decode() for name in map(instruction_set, range(3)) if name]
        (flags, *_) = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")]
        needed = {"AVX-512": {"avx512f", "avx512dq", "fma"}, "AVX2": {"avx2", "fma"}, "SSE2": {"sse2"}}
        assert names == [name for name, flags_needed in needed.items() if flags_needed <= set(flags.split())]

    @pytest.mark.skipif(sys.platform != "linux", reason="compiles an ELF library")
    def test_a_library_that_needs_more_is_refused(self, tmp_path):
        pytest.importorskip("lief")
        from release import platforms
        from release.inspect_library import faults

        source = tmp_path / "bad.cpp"
        source.write_text('#include <string>\nextern "C" int other(std::string* s) { return s->append("x").size(); }\n')
        compiler = shutil.which("g++")
        if compiler is None:
            pytest.skip("needs g++")
        subprocess.run([compiler, "-shared", "-fPIC", source, "-o", tmp_path / "_native.so"], check=True)
        said = "\n".join(faults(tmp_path / "_native.so", platforms.platform("manylinux2014_x86_64"), "ours_"))
        assert "needs libstdc++.so.6" in said
        assert "exports no function of ours" in said
        assert "exports other" in said

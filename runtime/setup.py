"""Builds the engine: src/ and the kernels of nnunetv2_lightm, which a source distribution brings along in kernels/."""

import os
import platform
import runpy
import shutil
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist
from setuptools.errors import PlatformError

HERE = Path(__file__).resolve().parent
# In the repository, or in a source distribution, which has copies.
KERNELS = next(path for path in (HERE.parent / "nnunetv2_lightm" / "ops" / "csrc", HERE / "kernels") if path.is_dir())
COMMON = HERE.parent if (HERE.parent / "native_build.py").is_file() else HERE
SHARED = [COMMON / name for name in ("native_build.py", "project_page.py")]
native_build, project_page = (runpy.run_path(str(path)) for path in SHARED)
FILE = native_build["library_name"](sys.platform, HERE / "lightm_runtime" / "engine_file.py")
# Set by release/wheels.py: an engine that was built before, and the platform that it is for.
GIVEN_LIBRARY = os.environ.get("NNUNETV2_LIGHTM_BUILD_LIBRARY")
GIVEN_PLATFORM = os.environ.get("NNUNETV2_LIGHTM_BUILD_PLATFORM")
# By which nnunetv2_lightm recognises its own library.
LEFT_OUT = "interface.cpp"


class build_engine(build_ext):
    """A plain shared library, to be loaded with ctypes."""

    def get_ext_filename(self, fullname):
        return str(Path(*fullname.split(".")).with_name(FILE))

    def run(self):
        # An old one would pass for the new one where that does not compile.
        for ext in self.extensions:
            Path(self.get_ext_fullpath(ext.name)).unlink(missing_ok=True)
        super().run()

    def build_extension(self, ext):
        if self.compiler.compiler_type == "msvc":
            raise PlatformError("lightm-runtime is built with GCC or Clang, not MSVC; or install the wheel for Windows")
        objects = native_build["compile_each"](lambda source: self.compile(ext, source), ext.sources)
        output = self.get_ext_fullpath(ext.name)
        self.compiler.link_shared_object(objects, output, extra_postargs=["-pthread"], target_lang="c++")

    def compile(self, ext, source):
        x86_64 = platform.machine().lower() in {"x86_64", "amd64"} and sys.platform != "darwin"
        (compiled,) = self.compiler.compile(
            [source],
            output_dir=self.build_temp,
            include_dirs=ext.include_dirs,
            extra_postargs=[*native_build["flags"](source, x86_64), "-pthread"],
            depends=ext.depends,
        )
        return compiled


class build_given_engine(build_ext):
    """Takes an engine that was built before, for any platform, instead of building one."""

    def get_ext_filename(self, fullname):
        return str(Path(*fullname.split(".")).with_name(Path(GIVEN_LIBRARY).name))

    def build_extension(self, ext):
        target = self.get_ext_fullpath(ext.name)
        self.mkpath(str(Path(target).parent))
        self.copy_file(GIVEN_LIBRARY, target)


class bdist_wheel_for_any_python(bdist_wheel):
    """The library knows nothing of Python: one wheel for each platform."""

    def get_tag(self):
        return "py3", "none", GIVEN_PLATFORM or super().get_tag()[2]


class build_anew(build):
    """Packs nothing that an earlier build left."""

    def run(self):
        native_build["remove_earlier"](self.build_base, self.build_lib)
        super().run()


class sdist_with_kernels(sdist):
    """A source distribution stands alone: it has a copy of the kernels."""

    def make_release_tree(self, base_dir, files):
        # The kernels lie outside of this folder.
        super().make_release_tree(
            base_dir, [name for name in files if not Path(name).is_absolute() and ".." not in name]
        )
        for path in SHARED:
            shutil.copyfile(path, Path(base_dir, path.name))
        shutil.copytree(KERNELS, Path(base_dir, "kernels"), dirs_exist_ok=True)
        shutil.copytree(HERE / "src", Path(base_dir, "src"), dirs_exist_ok=True)
        self.list_sources(Path(base_dir))

    def list_sources(self, folder):
        """As they lie in the distribution: setuptools lists them by their paths on this machine."""
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        (listed,) = folder.glob("*.egg-info/SOURCES.txt")
        listed.unlink()  # it may be a hard link to that of the checkout
        listed.write_text("\n".join(files) + "\n", encoding="utf-8")


sources = [path for folder in (HERE / "src", KERNELS) for path in folder.glob("*.cpp") if path.name != LEFT_OUT]
headers = [*(HERE / "src").glob("*.h*"), *KERNELS.glob("*.hpp")]
setup(
    long_description=project_page["long_description"](HERE, "runtime"),
    long_description_content_type="text/markdown",
    ext_modules=[
        Extension(
            "lightm_runtime._engine",
            sources=sorted(map(str, sources)),
            depends=sorted(map(str, headers)),
            include_dirs=[str(HERE / "src"), str(KERNELS)],
            language="c++",
        )
    ],
    cmdclass={
        "bdist_wheel": bdist_wheel_for_any_python,
        "build": build_anew,
        "build_ext": build_given_engine if GIVEN_LIBRARY else build_engine,
        "sdist": sdist_with_kernels,
    },
)

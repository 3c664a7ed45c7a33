"""What pyproject.toml cannot say: the compiled library, the start-up files, and packages that lie elsewhere."""

import os
import platform
import sys
from pathlib import Path

from setuptools import Command, Extension, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError, PlatformError

sys.path.insert(
    0, str(Path(__file__).resolve().parent)
)  # a build backend runs this file without its folder on the path
import native_build
import project_page

# Set by release/wheels.py: a library that was built before, and the platform that it is for; "any": none, in a wheel
# that every platform can take.
GIVEN_LIBRARY = os.environ.get("NNUNETV2_LIGHTM_BUILD_LIBRARY")
GIVEN_PLATFORM = os.environ.get("NNUNETV2_LIGHTM_BUILD_PLATFORM")

# A .pth line runs at every start of the interpreter, so it must stay silent whatever state the package is in: half
# removed, truncated, unreadable. `nnUNetv2_lightm doctor` reports it.
# Python >= 3.15 reads the .start file (PEP 829) and then skips the .pth file's import line.
STARTUP_FILES = {
    "nnunetv2_lightm.pth": (
        r'import sys; exec("try:\n from nnunetv2_lightm.autoload.boot import announce\n announce()\n'
        r'except Exception:\n pass")'
    ),
    "nnunetv2_lightm.start": "nnunetv2_lightm.autoload.boot:announce",
}

# Packages that lie elsewhere in the repository; the second has C++ alone, which `export --web` compiles.
ELSEWHERE = {
    "nnunetv2_lightm.dataset_conversion": "dataset_conversion",
    "nnunetv2_lightm.deploy.web.engine_sources": "runtime/src",
}


class build_native_library(build_ext):
    """Builds a plain shared library for ctypes, with flags per file; if that fails, the package installs without it.

    In CI it must not fail: see native_build.REQUIRED.
    """

    def run(self):
        # An old one would pass for the new one where that does not compile.
        for ext in self.extensions:
            Path(self.get_ext_fullpath(ext.name)).unlink(missing_ok=True)
        super().run()

    def get_ext_filename(self, fullname):
        return str(Path(*fullname.split(".")).with_name(native_build.library_name(sys.platform)))

    def build_extension(self, ext):
        try:
            if self.compiler.compiler_type == "msvc":
                raise PlatformError("it needs GCC or Clang, not MSVC; or install the wheel for Windows")
            folders = native_build.write_layout(self.build_temp)
            self.link(ext, native_build.compile_each(lambda source: self.compile(ext, source, folders), ext.sources))
        except (BaseError, CCompilerError, OSError) as error:
            if native_build.REQUIRED:
                raise
            print(
                f"nnunetv2_lightm: installed without its compiled selective scan ({error}). It runs without it, but "
                "slowly on a CPU; to get it, install a C++17 compiler (GCC or Clang), then this package again.",
                file=sys.stderr,
            )

    def compile(self, ext, source, folders):
        x86_64 = platform.machine().lower() in {"x86_64", "amd64"} and sys.platform != "darwin"
        (compiled,) = self.compiler.compile(
            [source],
            output_dir=self.build_temp,
            include_dirs=folders,
            extra_postargs=[*native_build.flags(source, x86_64), "-pthread"],
            depends=ext.depends,
        )
        return compiled

    def link(self, ext, objects):
        output = self.get_ext_fullpath(ext.name)
        self.compiler.link_shared_object(objects, output, extra_postargs=["-pthread"], target_lang="c++")


class build_given_library(build_ext):
    """Packs a library that was built before, for any platform, instead of building one."""

    def get_ext_filename(self, fullname):
        return str(Path(*fullname.split(".")).with_name(Path(GIVEN_LIBRARY).name))

    def build_extension(self, ext):
        target = self.get_ext_fullpath(ext.name)
        self.mkpath(str(Path(target).parent))
        self.copy_file(GIVEN_LIBRARY, target)


class bdist_wheel_for_any_python(bdist_wheel):
    """The library is independent of Python: one wheel for each platform."""

    def get_tag(self):
        return "py3", "none", GIVEN_PLATFORM or super().get_tag()[2]


class build_startup_files(Command):
    """Writes the start-up files to the root of the wheel: pip puts them into site-packages and lists them in RECORD."""

    description = "write the files that Python reads at start-up"
    user_options = []
    editable_mode = False

    def initialize_options(self):
        self.build_lib = None

    def finalize_options(self):
        self.set_undefined_options("build", ("build_lib", "build_lib"))

    def run(self):
        # An editable wheel leaves build_lib out; what goes into it is written where the install command points.
        root = Path(self.get_finalized_command("install").install_lib if self.editable_mode else self.build_lib)
        root.mkdir(parents=True, exist_ok=True)
        for name, line in STARTUP_FILES.items():
            (root / name).write_text(line + "\n", encoding="utf-8")

    def get_source_files(self):
        return []

    def get_outputs(self):
        return [str(Path(self.build_lib, name)) for name in STARTUP_FILES]

    def get_output_mapping(self):
        return {}


class build_with_startup_files(build):
    sub_commands = [*build.sub_commands, ("build_startup_files", None)]

    def run(self):
        native_build.remove_earlier(self.build_base, self.build_lib)
        super().run()


setup(
    long_description=project_page.long_description(native_build.ROOT),
    long_description_content_type="text/markdown",
    packages=[*find_packages(include=["nnunetv2_lightm", "nnunetv2_lightm.*"]), *ELSEWHERE],
    package_dir=ELSEWHERE,
    ext_modules=[
        Extension(
            "nnunetv2_lightm.ops._native",
            sources=list(map(str, native_build.SOURCES)),
            depends=list(map(str, native_build.HEADERS)),
            language="c++",
            optional=not native_build.REQUIRED,
        )
    ]
    if GIVEN_PLATFORM != "any"
    else [],
    cmdclass={
        "bdist_wheel": bdist_wheel_for_any_python,
        "build": build_with_startup_files,
        "build_ext": build_given_library if GIVEN_LIBRARY else build_native_library,
        "build_startup_files": build_startup_files,
    },
)

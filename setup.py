"""What pyproject.toml cannot say: the start-up files, and the packages that do not lie where they are imported from."""

from pathlib import Path

from setuptools import Command, find_packages, setup
from setuptools.command.build import build

# A .pth line runs at every start of the interpreter, so it must stay silent where the package is only half there.
# Python >= 3.15 reads the .start file (PEP 829) and then skips the .pth file's import line.
STARTUP_FILES = {
    "nnunetv2_lightm.pth": (
        r'import sys; exec("try:\n from nnunetv2_lightm.autoload.boot import announce\n'
        r'except ImportError:\n pass\nelse:\n announce()")'
    ),
    "nnunetv2_lightm.start": "nnunetv2_lightm.autoload.boot:announce",
}


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


setup(
    packages=[*find_packages(include=["nnunetv2_lightm", "nnunetv2_lightm.*"]), "nnunetv2_lightm.dataset_conversion"],
    package_dir={"nnunetv2_lightm.dataset_conversion": "dataset_conversion"},
    cmdclass={"build": build_with_startup_files, "build_startup_files": build_startup_files},
)

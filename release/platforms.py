"""The platforms that get a wheel with the compiled library."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from platform import machine

# Zig's names for processors, where a system uses another name.
ZIGS_NAMES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True)
class Platform:
    """Attributes:
    tag: Platform tag of the wheel.
    target: Zig's name for the platform, with the oldest system that it supports.
    system: The value of ``sys.platform`` there.
    x86_64: Whether the library holds code for AVX2 and AVX-512 too.
    emulator: Program that runs its executables on another machine, with its arguments; empty: there is none.
    """

    tag: str
    target: str
    system: str
    x86_64: bool
    emulator: tuple[str, ...] = ()

    @property
    def is_this_machine(self) -> bool:
        """Whether its executables run here as they are."""
        processor = machine().lower()
        same = ZIGS_NAMES.get(processor, processor) == self.target.partition("-")[0]
        return same and sys.platform == self.system


PLATFORMS = (
    Platform("manylinux2014_x86_64", "x86_64-linux-gnu.2.17", "linux", x86_64=True),
    Platform(
        "manylinux2014_aarch64",
        "aarch64-linux-gnu.2.17",
        "linux",
        x86_64=False,
        emulator=("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"),
    ),
    Platform("macosx_11_0_arm64", "aarch64-macos.11.0", "darwin", x86_64=False),
    Platform("macosx_10_15_x86_64", "x86_64-macos.10.15", "darwin", x86_64=True),
    Platform("win_amd64", "x86_64-windows-gnu", "win32", x86_64=True, emulator=("wine",)),
)
# What the libraries may need from a system: its C library and its parts.
SYSTEM_LIBRARIES = {
    "linux": {
        "libc.so.6",
        "libm.so.6",
        "libpthread.so.0",
        "libdl.so.2",
        "ld-linux-x86-64.so.2",
        "ld-linux-aarch64.so.1",
    },
    "darwin": {"/usr/lib/libSystem.B.dylib"},
    "win32": {"KERNEL32.dll", "ntdll.dll", "msvcrt.dll"},  # and the universal C runtime, in many parts
}
UNIVERSAL_C_RUNTIME = "api-ms-win-crt-"


def platform(tag: str) -> Platform:
    """Raises: ValueError: if no wheel has that tag."""
    for known in PLATFORMS:
        if known.tag == tag:
            return known
    raise ValueError(f"no wheel is built for {tag}; expected one of {', '.join(known.tag for known in PLATFORMS)}")

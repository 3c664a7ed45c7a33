"""LightM-UNet for stock nnU-Net v2.

Importing this package loads nothing else: its ``autoload`` runs at every start of the interpreter, and nnU-Net must not
pay for torch twice. Public names are loaded when they are used.
"""

# Type checkers take this branch; importing `typing` for the constant would cost more than everything else here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from .networks.lightm_unet import LightMUNet
    from .ops import selective_scan

__all__ = ["LightMUNet", "__version__", "selective_scan"]

_HOMES = {"LightMUNet": "nnunetv2_lightm.networks.lightm_unet", "selective_scan": "nnunetv2_lightm.ops"}


def __getattr__(name: str):
    if name == "__version__":
        from importlib.metadata import version

        return version("nnunetv2-lightm")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

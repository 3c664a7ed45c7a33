"""Leads nnU-Net's trainer look-up to nnunetv2_lightm.trainers.

nnU-Net imports this file as a top-level module, asks it for a trainer by name with ``hasattr`` and drops it afterwards.
The classes live under their real module names, so they stay the same class and can be pickled.
"""

import os
import sys
import warnings


def __getattr__(name):
    # Python itself asks for names that begin with an underscore.
    if not name.startswith("_"):
        trainer = _find(name)
        if trainer is not None:
            return trainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _find(name):
    try:
        from nnunetv2_lightm.trainers import explain_unknown, find_trainer
    except Exception as error:
        message = (
            f"nnunetv2-lightm cannot be imported by {sys.executable}: {type(error).__name__}: {error}. "
            "Run `nnUNetv2_lightm doctor` for the fix; NNUNETV2_LIGHTM_AUTOLOAD=0 leaves its trainers out."
        )
        if name.startswith("nnUNetTrainerLightMUNet"):
            raise ImportError(message) from error
        # The name may belong to another plug-in, whose directory nnU-Net has still to search.
        warnings.warn(message, RuntimeWarning, stacklevel=2)
        return None
    trainer = find_trainer(name)
    if trainer is None:
        explanation = explain_unknown(name, os.path.dirname(os.path.abspath(__file__)))
        if explanation is not None:
            # nnU-Net, whose search would end without a result, raises this type as well.
            raise RuntimeError(explanation)
    return trainer

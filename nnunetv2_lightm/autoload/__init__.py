"""How stock nnU-Net finds our trainers after nothing but an install.

nnU-Net looks trainers up by name, in its own tree and then in the directories listed in ``nnUNet_extTrainer``. At
every start of Python ``nnunetv2_lightm.pth`` (``nnunetv2_lightm.start`` from Python 3.15 on) calls
:func:`.boot.announce`, which appends the ``shim`` directory to that variable. The one module in there leads nnU-Net to
the real classes.
"""


def shim_directory() -> str:
    """Directory that ``nnUNet_extTrainer`` must contain for nnU-Net to find our trainers.

    Users who start Python in a way that skips site-packages' start-up files (``python -S``, ``pip install --target``)
    export it by hand; ``nnUNetv2_lightm doctor --print-trainer-path`` prints it.
    """
    import os

    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "shim")

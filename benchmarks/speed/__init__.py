"""Time and memory of our network and nnU-Net's: each module is a command, ``python -m benchmarks.speed.NAME``."""

import os

# Before anything is imported: scikit-learn, which nnU-Net imports, sets variables of OpenMP.
STARTED_WITH = dict(os.environ)

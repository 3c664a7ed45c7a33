"""Time and memory of our network and nnU-Net's: each module is a command, ``python -m benchmarks.speed.NAME``."""

"""Time and memory, ours and nnU-Net's network: each module is a command, ``python -m benchmarks.speed.NAME``."""

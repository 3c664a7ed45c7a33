"""What the benchmarks share: the machine, timing, goals, rivals, result files, table and plot."""

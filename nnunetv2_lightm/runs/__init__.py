"""Long work that survives interruption: steps with recorded outputs, child processes, nnU-Net's commands and logs."""

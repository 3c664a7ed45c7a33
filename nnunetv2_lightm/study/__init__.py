"""Studies on top of nnU-Net's results: evaluation, figures, and the demo that runs the whole path once."""

"""The authors' released checkpoints, read without executing anything in them, as model folders of stock nnU-Net."""

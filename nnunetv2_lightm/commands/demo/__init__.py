"""``nnUNetv2_lightm demo``: from convert to a table, on generated phantoms."""

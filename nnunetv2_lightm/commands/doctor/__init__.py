"""``nnUNetv2_lightm doctor``: a module for each subject, whose checks return :class:`.finding.Finding` objects."""

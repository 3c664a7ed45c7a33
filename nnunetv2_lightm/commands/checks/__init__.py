"""What ``doctor`` looks at: one module for each subject, each returning :class:`.finding.Finding` objects."""

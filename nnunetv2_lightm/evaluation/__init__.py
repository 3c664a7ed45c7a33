"""Scores of segmentations: overlap and surface distances, intervals, paired tests, and their tables."""

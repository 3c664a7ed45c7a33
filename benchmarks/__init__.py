"""This repository's own measurements: speed and memory, and accuracy on real data. They use the package."""

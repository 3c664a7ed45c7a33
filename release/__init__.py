"""Builds a release: libraries for every platform, wheels, their tests, and the checks before an upload."""

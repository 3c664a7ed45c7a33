"""Converters from public data sets' own layouts to nnU-Net's raw format, and phantoms in the same layouts."""

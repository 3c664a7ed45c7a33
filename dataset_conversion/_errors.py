"""What can go wrong: with one case, or with the conversion as a whole."""

from __future__ import annotations


class CaseRefused(Exception):
    """One case cannot be converted; the message says why and names the file. The others are still converted."""


class ConversionError(Exception):
    """The conversion cannot start or finish; the message says what to do. Nothing was written."""

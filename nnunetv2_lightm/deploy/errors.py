"""The error of this room."""


class ExportError(Exception):
    """A model cannot be exported; the message says what is in the way and what to do."""

"""Errors that stop a report; the command prints them as one line."""


class ComplexityError(RuntimeError):
    """Something the report needs is missing; the message says what, and how to get it."""


class ThopMissing(ComplexityError):
    """The one version of thop whose counts are the paper's is not installed."""


class PlansError(ComplexityError):
    """A data set, plans file, configuration or trainer does not exist, or they do not fit together."""

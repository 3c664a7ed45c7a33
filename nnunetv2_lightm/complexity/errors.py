"""What stops a report; the command prints it as one line."""


class ComplexityError(RuntimeError):
    """Something that the report needs is not there; the message says what, and how to get it."""


class ThopMissing(ComplexityError):
    """The one version of thop whose counts are the paper's is not installed."""


class PlansError(ComplexityError):
    """There is no such data set, plans file, configuration or trainer, or they do not go together."""

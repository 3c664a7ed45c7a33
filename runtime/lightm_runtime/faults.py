"""The error that every reader of images raises."""


class ImageError(Exception):
    """An image cannot be used; the message names the file, what is wrong, and what is needed."""

"""Files on a user's disk: written whole, locked, and replaced or removed only where that loses nothing.

Standard library only: every other part of the package may use it, the converters too.

- :mod:`.atomic`: a file appears whole or not at all.
- :mod:`.guard`: keeps sources out of reach of targets; whether a file may be replaced; sets files aside unharmed.
- :mod:`.record`: which files of a folder this package made; only these are ever removed.
- :mod:`.relative`: the way from a folder to a file.
- :mod:`.scratch`: a temporary folder for a piece of work.
- :mod:`.transaction`: folders appear together and whole, or not at all.
- :mod:`.patience`: retries what Windows refuses while another program has a file open.
- :mod:`.locks`: one process at a time.
- :mod:`.writers`: whether another process is writing a file.
- :mod:`.text`: a few names for a message, "and 4 more".
"""

from .atomic import partial_path, remove_partial, whole_file, write_text
from .guard import NotOursError, check_free, check_output, keep_apart, set_aside
from .locks import FileLock, LockHeldError
from .patience import patiently
from .record import INCIDENTAL, RECORD_FILE, Record, check_replaceable
from .relative import relative_path
from .scratch import scratch_folder
from .text import some_of
from .transaction import FolderTransaction, work_folder
from .writers import is_being_written

__all__ = [
    "INCIDENTAL",
    "RECORD_FILE",
    "FileLock",
    "FolderTransaction",
    "LockHeldError",
    "NotOursError",
    "Record",
    "check_free",
    "check_output",
    "check_replaceable",
    "is_being_written",
    "keep_apart",
    "partial_path",
    "patiently",
    "relative_path",
    "remove_partial",
    "scratch_folder",
    "set_aside",
    "some_of",
    "whole_file",
    "work_folder",
    "write_text",
]

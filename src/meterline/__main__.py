"""The `meterline` command; where only the relay SDK is installed, it names what to install."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

EXIT_NOT_INSTALLED = 1


def main() -> None:
    """Run the command line, or end with the extra that brings it."""
    command_line().main()


def command_line() -> ModuleType:
    """Import the command line.

    Raises:
        SystemExit: a package that it needs is not installed.
    """
    try:
        return import_module("meterline.app.cli")
    except ModuleNotFoundError as error:
        package = (error.name or "meterline").partition(".")[0]
        if package == "meterline":  # a defect, which keeps its traceback
            raise
        sys.stderr.write(
            f"meterline: the command line needs {package}, which the relay SDK alone does not "
            "bring: pip install 'meterline[server]'\n"
        )
        raise SystemExit(EXIT_NOT_INSTALLED) from None


if __name__ == "__main__":
    main()

"""The `meterline` command; says what to install where only the relay SDK is."""

from __future__ import annotations

import sys
from importlib.util import find_spec

# What the command line needs and the relay extra does not bring.
_SERVER_MODULES = ("typer", "rich", "pydantic_settings")


def main() -> None:
    """Run the command line, or say which extra brings it."""
    if not all(find_spec(name) for name in _SERVER_MODULES):
        sys.exit(
            "meterline: this installation holds the relay SDK alone; "
            "the command line comes with: pip install 'meterline[server]'"
        )
    from meterline.app.cli import main as run  # noqa: PLC0415 - needs what was looked for above

    run()


if __name__ == "__main__":
    main()

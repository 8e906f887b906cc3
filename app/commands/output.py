"""What machines read goes to standard output as JSON, and nothing else goes there with it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

from rich.markup import escape
from rich.table import Table


def print_json(content: Any) -> None:
    """One JSON object on one line."""
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


def side_by_side(rows: Iterable[tuple[str, ...]]) -> Table:
    """Names and what they are, indented; a long last column goes on below itself."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for number, row in enumerate(rows):
        if number == 0:
            table.add_column(width=0)
            for _ in row[:-1]:
                table.add_column(no_wrap=True)
            table.add_column(overflow="fold")
        table.add_row("", *map(escape, row))
    return table

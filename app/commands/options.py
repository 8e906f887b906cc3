"""Options that several commands share, so that their help is the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DataDir = Annotated[
    Path,
    typer.Option(
        "--data",
        envvar="METERLINE_DATA_DIR",
        help="Data directory of the pipeline that `meterline up` runs.",
        show_envvar=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]

"""`meterline rates ...`: make a catalogue of rate cards, look a price up."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from meterline.app import tables
from meterline.app.clock import now_ms
from meterline.app.commands.options import DataDir, Json
from meterline.app.commands.output import print_json
from meterline.app.commands.times import minute_text
from meterline.app.printable import visible
from meterline.app.settings import DEFAULT_DATA_DIR, load_settings
from meterline.app.tables import TerminalTable
from meterline.app.wiring import catalogue, clickhouse_config
from meterline.backends.clickhouse.client import Client
from meterline.pricing.importer import ImportUnavailableError, import_catalogue
from meterline.pricing.show import TOKEN_CLASSES, RateCardView, RateNotFoundError, show
from meterline.reports.repricing.catalogue_archive import read_versions
from meterline.schemas.errors import UserError
from meterline.schemas.periods import parse_rfc3339

_out = Console(highlight=False)
rates = typer.Typer(help="Rate cards and price catalogues.", no_args_is_help=True)


@rates.command("import")
def rates_import(
    out: Annotated[Path, typer.Option(help="Catalogue file to write.")],
    name: Annotated[str, typer.Option(help="Catalogue version; default: year and month.")] = "",
    *,
    json_output: Json = False,
) -> None:
    """Make a catalogue of list prices from the installed genai-prices package."""
    version = name or f"{datetime.fromtimestamp(now_ms() / 1000, UTC):%Y-%m}"
    try:
        report = import_catalogue(out, name=version)
    except ImportUnavailableError as error:
        raise UserError(str(error)) from error
    if json_output:
        print_json(asdict(report))
        return
    _out.print(
        f"{out}: catalogue {report.catalogue_version}, {report.models} models of "
        f"{len(report.sellers)} sellers, from {report.generated_from}"
    )
    for reason, count in Counter(one.reason.value for one in report.skipped).most_common():
        _out.print(f"  left out {count}: {reason}")


@rates.command("show")
def rates_show(
    model: Annotated[str, typer.Argument(help="Model, in any spelling.")],
    at: Annotated[
        str, typer.Option(help="Date or RFC 3339 time of the prices; default: now.")
    ] = "",
    provider: Annotated[str, typer.Option(help="Provider that sells it; default: its maker.")] = "",
    *,
    json_output: Json = False,
) -> None:
    """Show the prices of a model in force at a date."""
    try:
        view = show(catalogue(load_settings()), model, _moment(at), provider or None)
    except RateNotFoundError as error:
        raise UserError(str(error)) from error
    if json_output:
        print_json(view.as_json())
    else:
        _out.print(prices_table(view))


@rates.command("versions")
def rates_versions(data: DataDir = DEFAULT_DATA_DIR, *, json_output: Json = False) -> None:
    """List catalogue versions that are or were in use; `rerate` and `report whatif` take any."""
    settings = load_settings(data)
    client = Client(clickhouse_config(settings))
    try:
        found = read_versions(client)
    finally:
        client.close()
    in_use = catalogue(settings).version
    if json_output:
        print_json([{**each._asdict(), "in_use": each.version == in_use} for each in found])
        return
    for each in found:
        mark = "  in use" if each.version == in_use else ""
        line = f"{minute_text(each.used_since_ms)}  {visible(each.version)}{mark}"
        _out.print(line, soft_wrap=True, markup=False, emoji=False)
    if not found:
        _out.print("none yet: a sink stores the catalogue that it starts with")


def _moment(text: str) -> int:
    if not text:
        return now_ms()
    try:
        return parse_rfc3339(text if "T" in text else f"{text}T00:00:00+00:00")
    except ValueError as error:
        message = f"--at {text}: write 2026-11-21 or 2026-11-21T12:00:00Z"
        raise UserError(message) from error


def prices_table(view: RateCardView) -> TerminalTable:
    """The prices of a model; token classes without a price of their own are left out."""
    used = [name for name in TOKEN_CLASSES if any(row.usd_per_million[name] for row in view.rows)]
    ends = any(row.effective_to for row in view.rows)
    table = TerminalTable(
        [
            tables.name("tier"),
            tables.measure("above tokens"),
            tables.fact("from"),
            *([tables.fact("to")] if ends else []),
            *(tables.money(name.replace("_", " "), _PRIORITY.get(name)) for name in used),
        ],
        title=f"{view.seller}/{view.model} at {view.at}, USD per million tokens",
        caption=f"catalogue {view.price_version}, source {view.source}",
    )
    for row in view.rows:
        table.add(
            row.service_tier,
            f"{row.above_input_tokens:,}",
            row.effective_from,
            *([row.effective_to or ""] if ends else []),
            *(row.usd_per_million[name] or "" for name in used),
        )
    return table


_PRIORITY = {
    "output_audio": 1,
    "input_audio": 2,
    "cache_write_1h": 3,
    "cache_write": 4,
    "cache_read": 5,
}
"""What a narrow terminal drops first; the prices of input and output are always there."""

"""`meterline provider ...`: a provider's usage export against the events of the relays."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from meterline.app import tables
from meterline.app.clock import now_ms
from meterline.app.commands.options import DataDir, Json
from meterline.app.commands.output import print_json
from meterline.app.printable import markup, visible
from meterline.app.settings import DEFAULT_DATA_DIR, load_settings
from meterline.app.tables import TerminalTable, styled
from meterline.app.wiring import catalogue, clickhouse_config
from meterline.backends.clickhouse.client import Client
from meterline.pricing.names import seller_name
from meterline.reports.attribution.core.period import ReportPeriod, ReportPeriodError, read_period
from meterline.reports.core.tabular import percent_text
from meterline.reports.providers.core.exports import RECORDS_MAX, ProviderRow, days_of, read_export
from meterline.reports.providers.core.layouts import ExportError, ProviderExportFormat, layout_of
from meterline.reports.providers.core.variance import PPM, MeasureVariance, Variance
from meterline.reports.providers.reconcile import Reconciliation, reconcile_provider
from meterline.reports.providers.store import DayRange, store_import
from meterline.schemas.errors import UserError
from meterline.schemas.money import usd_display, usd_text
from meterline.schemas.periods import Calendar

_out = Console(highlight=False)
provider = typer.Typer(help="Provider usage exports: import and compare.", no_args_is_help=True)
EXIT_FLAGGED = 1
# Size of one file, read whole into memory: a year of an account by day, model and key.
FILE_BYTES_MAX = 256 * 1024 * 1024
_SCREEN_ROWS_MAX = 60
_PERCENT_MAX = 100


@provider.command("import")
def provider_import(
    files: Annotated[list[Path], typer.Argument(help="Files of one export, JSON or CSV.")],
    form: Annotated[
        ProviderExportFormat, typer.Option("--format", help="Layout of the files.")
    ] = ProviderExportFormat.AUTO,
    columns: Annotated[
        str,
        typer.Option(
            help="Columns of a file of another layout: "
            "day=COLUMN,model=COLUMN,input_tokens=A+B,cost_usd=C."
        ),
    ] = "",
    name: Annotated[
        str, typer.Option("--provider", help="Provider of a file of another layout.")
    ] = "",
    account: Annotated[
        str, typer.Option(help="Account at the provider, if you have several.")
    ] = "",
    data: DataDir = DEFAULT_DATA_DIR,
    *,
    json_output: Json = False,
) -> None:
    """Import a usage or cost export; the newest import of a day replaces earlier ones."""
    own = layout_of(seller_name(name), columns) if columns else None
    rows: list[ProviderRow] = []
    for file in files:
        if file.stat().st_size > FILE_BYTES_MAX:
            message = f"{file}: larger than {FILE_BYTES_MAX >> 20} MiB: split it, whole days each"
            raise UserError(message)
        try:
            rows += read_export(file.read_bytes(), form, own).rows
        except ExportError as error:
            message = f"{file}: {error}"
            raise UserError(message) from error
    span = days_of(rows)
    if span is None or len(rows) > 2 * RECORDS_MAX:
        message = "nothing to import" if span is None else "too much at once: import fewer files"
        raise UserError(message)
    client = Client(clickhouse_config(load_settings(data)))
    try:
        stored = store_import(client, rows, account, now_ms())
    finally:
        client.close()
    if json_output:
        first, last = map(str, span)
        print_json({"stored": stored, "rows": len(rows), "first_day": first, "last_day": last})
        return
    done = "imported" if stored else "already imported, nothing changed"
    days = str(span[0]) if span[0] == span[1] else f"{span[0]} to {span[1]}"
    text = f"{done}: {len(rows):,} rows of {visible(rows[0].provider)}, {days} (UTC)"
    _out.print(text, soft_wrap=True, markup=False, emoji=False)


@provider.command("compare")
def provider_compare(
    name: Annotated[
        str, typer.Argument(metavar="PROVIDER", help="Provider: openai, anthropic, ...")
    ],
    period: Annotated[str, typer.Option(help="Period: 2026-10, 30d, previous_month, ...")] = "30d",
    tolerance: Annotated[
        str,
        typer.Option(
            help="Tolerance, in percent of the provider's count.", envvar="METERLINE_TOLERANCE"
        ),
    ] = "5",
    data: DataDir = DEFAULT_DATA_DIR,
    *,
    json_output: Json = False,
) -> None:
    """Compare an imported export with the relays' events.

    Exit code 1 if anything is flagged.
    """
    settings = load_settings(data)
    try:
        stretch = read_period(period, Calendar("UTC"), now_ms())
    except ReportPeriodError as error:
        raise UserError(str(error)) from error
    client = Client(clickhouse_config(settings))
    try:
        found = reconcile_provider(
            client, catalogue(settings), name, _days(stretch), _ppm(tolerance)
        )
    finally:
        client.close()
    if json_output:
        print_json(as_json(found, _ppm(tolerance)))
    else:
        show_comparison(_out, found, tolerance)
    raise typer.Exit(EXIT_FLAGGED if found.flagged else 0)


def _days(period: ReportPeriod) -> DayRange:
    first, last = (
        datetime.fromtimestamp(at / 1000, UTC).date() for at in (period.start_ms, period.end_ms - 1)
    )
    return DayRange(first, last)


def _ppm(percent: str) -> int:
    try:
        amount = Decimal(percent)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not (amount.is_finite() and 0 <= amount <= _PERCENT_MAX):
        message = f"--tolerance {percent}: write a percentage from 0 to {_PERCENT_MAX}"
        raise UserError(message)
    return int(amount * PPM / 100)


def as_json(found: Reconciliation, tolerance_ppm: int) -> dict[str, object]:
    """The comparison as plain values."""
    return {
        "provider": found.provider,
        "billed": "relay count",
        "tolerance_percent": percent_text(tolerance_ppm),
        "days": [str(day) for day in found.days],
        "flagged": len(found.flagged),
        "other_costs_usd": {name: usd_text(cost) for name, cost in found.other_costs.items()},
        "rows": [_variance_json(each) for each in found.variances],
    }


def _variance_json(each: Variance) -> dict[str, object]:
    return {
        "day": str(each.cell.day),
        "model": each.cell.model,
        "flagged": list(each.flagged),
        "measures": {one.name: _measure_json(one) for one in each.measures},
        "contributors": [
            {
                "organisation": one.organisation,
                "key": one.key,
                "requests": one.requests,
                "tokens": one.tokens,
                "reported_difference": one.reported_difference,
                "cost_usd": usd_text(one.cost_nano_usd),
            }
            for one in each.contributors
        ],
    }


def _measure_json(one: MeasureVariance) -> dict[str, object]:
    money = one.name == "cost_usd"
    ppm = one.variance_ppm
    return {
        "provider": usd_text(one.theirs) if money else one.theirs,
        "relay": usd_text(one.ours) if money else one.ours,
        "difference": usd_text(one.difference) if money else one.difference,
        "variance_percent": None if ppm is None else percent_text(ppm),
    }


def show_comparison(out: Console, found: Reconciliation, tolerance: str) -> None:
    """Print a comparison for an operator: what is flagged, with the keys behind it."""
    days = _span(found.days)
    flagged = found.flagged
    if flagged:
        out.print(comparison_table(found))
    if len(flagged) > _SCREEN_ROWS_MAX:
        out.print(f"[dim]{len(flagged) - _SCREEN_ROWS_MAX:,} more; --json has all[/]")
    colour = "yellow" if flagged else "green"
    out.print(
        markup(
            f"[{colour}]{len(flagged)} of {len(found.variances)}[/] counts of a day and model "
            f"({{provider}}, {days}) differ by more than {tolerance} %; the relay's count is "
            "what is billed",
            provider=found.provider,
        )
    )
    if found.other_costs:
        items = ", ".join(
            f"{name or 'unnamed'} {usd_display(cost)}" for name, cost in found.other_costs.items()
        )
        out.print(
            f"not compared, as no such model is in the catalogue: {visible(items)}",
            soft_wrap=True,
            markup=False,
            emoji=False,
        )


def _span(days: Sequence[date]) -> str:
    if len(days) == 1:
        return str(days[0])
    return f"{days[0]} to {days[-1]}, {len(days)} days"


def comparison_table(found: Reconciliation) -> TerminalTable:
    """What is flagged, with the keys behind it."""
    table = TerminalTable(
        [
            tables.fact("day"),
            tables.name("model"),
            tables.fact("count"),
            tables.money("provider"),
            tables.money("relay"),
            tables.measure("%"),
        ],
        title=f"{found.provider}, {_span(found.days)} (UTC)",
    )
    for each in found.flagged[:_SCREEN_ROWS_MAX]:
        counted = [one for one in each.measures if one.theirs or one.ours]
        for number, one in enumerate(counted):
            _add(table, each, one, first=number == 0)
        for who in each.contributors:
            key = styled(f"{who.organisation}/{who.key}", "dim")
            tokens = styled(f"{who.tokens:,}", "dim")
            table.add("", key, styled("tokens", "dim"), "", tokens, "")
    return table


def _add(table: TerminalTable, each: Variance, one: MeasureVariance, *, first: bool) -> None:
    flagged = one.name in each.flagged
    money = one.name == "cost_usd"
    ppm = one.variance_ppm
    shown = "not there" if ppm is None else percent_text(ppm)[:-2]
    table.add(
        str(each.cell.day) if first else "",
        each.cell.model if first else "",
        one.name.removesuffix("_usd").replace("_", " "),
        usd_display(one.theirs) if money else f"{one.theirs:,}",
        usd_display(one.ours) if money else f"{one.ours:,}",
        styled(shown, "yellow") if flagged else shown,
    )

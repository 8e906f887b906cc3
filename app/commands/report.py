"""`meterline report ...`: questions about spend."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from meterline.app import tables
from meterline.app.clock import now_ms
from meterline.app.commands.lazy import Lazy, lazy_group
from meterline.app.commands.options import DataDir
from meterline.app.errors import explain
from meterline.app.printable import markup
from meterline.app.settings import DEFAULT_DATA_DIR, Settings, load_settings
from meterline.app.tables import TerminalTable, styled
from meterline.app.wiring import clickhouse_config, kafka_config
from meterline.backends.clickhouse.client import Client
from meterline.control.store import read_policies
from meterline.reports.attribution.core.answer import Answer, with_policies
from meterline.reports.attribution.core.period import Granularity, ReportPeriodError, read_period
from meterline.reports.attribution.core.question import (
    Attribution,
    QuestionError,
    read_axis,
    read_filter,
)
from meterline.reports.attribution.core.roles import statements
from meterline.reports.attribution.core.table import columns_of, rows_of
from meterline.reports.attribution.reader import read_attribution, with_peaks
from meterline.reports.core.tabular import (
    ColumnKind,
    TableColumn,
    TableFormat,
    percent_text,
    write_table,
)
from meterline.schemas.errors import UserError
from meterline.schemas.money import usd_display
from meterline.schemas.periods import Calendar, rfc3339
from meterline.schemas.policy import ScopePolicy

_out = Console(highlight=False)
_progress = Console(stderr=True, highlight=False)
report = typer.Typer(
    cls=lazy_group({"whatif": Lazy("meterline.app.commands.repricing", "what_if")}),
    help="Spend reports.",
    no_args_is_help=True,
)

# Lines on a screen; files get all.
SCREEN_ROWS_MAX = 40
POLICY_SECONDS = 5.0


class OutputFormat(StrEnum):
    """How a report is printed or written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


@report.callback()
def _keep_subcommands() -> None:
    """Spend reports."""


@report.command("attribution")
def attribution(
    by: Annotated[
        str,
        typer.Option(
            help="Dimensions to group by, comma-separated: organisation, department, project, key, "
            "user, team, model, provider, environment, tag:NAME."
        ),
    ] = "department,model",
    period: Annotated[
        str,
        typer.Option(
            help="Period: current_month, previous_month, 7d, 30d, 90d, all, 2026-10, 2026-10-31 or "
            "2026-10-01..2026-10-15."
        ),
    ] = "current_month",
    granularity: Annotated[
        Granularity, typer.Option(help="Length of the time bucket of a row.")
    ] = Granularity.TOTAL,
    where: Annotated[
        list[str] | None,
        typer.Option(help="Filter, NAME=VALUE[,VALUE]; may be repeated."),
    ] = None,
    peaks: Annotated[  # noqa: FBT002 - an option of the command line
        bool, typer.Option("--peaks", help="Add the busiest minute of each row beside its limits.")
    ] = False,
    limit: Annotated[int, typer.Option(help="Maximum number of rows.")] = 100_000,
    form: Annotated[
        OutputFormat, typer.Option("--format", help="Output format.")
    ] = OutputFormat.TABLE,
    out: Annotated[
        Path | None, typer.Option(help="Write to this file instead of standard output.")
    ] = None,
    data: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Report requests, tokens, cost, budgets and projections by any combination of dimensions."""
    settings = load_settings(data)
    calendar = Calendar(settings.time_zone)
    at_ms = now_ms()
    try:
        question = Attribution(
            read_period(period, calendar, at_ms),
            calendar,
            tuple(read_axis(each.strip()) for each in by.split(",") if each.strip()),
            granularity,
            tuple(read_filter(each) for each in where or ()),
            limit,
        )
    except (ReportPeriodError, QuestionError) as error:
        raise UserError(str(error)) from error
    client = Client(clickhouse_config(settings))
    try:
        with waiting("querying ClickHouse"):
            answer = read_attribution(client, question)
        if peaks:
            with waiting("finding the busiest minutes"):
                answer = with_peaks(client, answer)
    finally:
        client.close()
    answer = with_policies(answer, policies_of(settings), at_ms)
    if form is OutputFormat.TABLE and out is None:
        show_answer(_out, answer)
    else:
        write_answer(
            answer, TableFormat.CSV if form is OutputFormat.TABLE else TableFormat(form.value), out
        )


@contextmanager
def waiting(doing: str) -> Iterator[None]:
    """A spinner on standard error, on a terminal."""
    if not _progress.is_terminal:
        yield
        return
    with _progress.status(f"{doing} ..."):
        yield


def policies_of(settings: Settings) -> list[ScopePolicy]:
    """Every scope's policy; none, with a warning on standard error, where no broker answers."""
    try:
        objects = read_policies(kafka_config(settings, "report"), POLICY_SECONDS)
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        _progress.print(markup("[yellow]without budgets:[/] {why}", why=line), soft_wrap=True)
        return []
    return [item for item in objects.values() if isinstance(item, ScopePolicy)]


def write_answer(answer: Answer, form: TableFormat, out: Path | None) -> None:
    """Write an answer to a file, whole or not at all, or to standard output."""
    if out is None:
        if form is TableFormat.PARQUET and sys.stdout.isatty():
            message = "parquet is for files: add --out FILE"
            raise UserError(message)
        write_table(form, columns_of(answer), rows_of(answer), sys.stdout.buffer)
        sys.stdout.flush()
        return
    part = out.with_name(out.name + ".part")
    with part.open("wb") as file:
        write_table(form, columns_of(answer), rows_of(answer), file)
    part.replace(out)
    _progress.print(f"{len(answer.lines):,} rows in {out}")


# Too wide for a screen and rarely needed there; files have them.
_NOT_ON_SCREEN = frozenset({"cache_read_tokens", "cache_write_tokens", "reasoning_tokens"})
_SHORT = {
    "input_tokens": "in",
    "output_tokens": "out",
    "cost_usd": "cost",
    "share_percent": "share",
    "budget_usd": "budget",
    "remaining_usd": "left",
    "used_percent": "used",
    "projected_end_usd": "projected",
    "projected_exhaustion": "exhausted",
}
_PRIORITY = {
    "input_tokens": 1,
    "output_tokens": 2,
    "share_percent": 3,
    "projected_exhaustion": 4,
    "projected_end_usd": 5,
    "remaining_usd": 6,
    "used_percent": 7,
    "requests": 8,
    # Only there with --peaks.
    "tpm_limit": 9,
    "rpm_limit": 10,
    "peak_tpm": 11,
    "peak_rpm": 12,
    "budget_usd": 13,
    # Requests without a price: who does not see them takes the cost for the whole.
    "unpriced": 14,
}
"""What a narrow terminal drops first: measures that are not named here, then these. Names and the
cost are always there."""


def show_answer(out: Console, answer: Answer) -> None:
    """Print the top of an answer for an operator."""
    out.print(attribution_table(answer))
    rows = len(answer.lines)
    if rows > SCREEN_ROWS_MAX:
        more = rows - SCREEN_ROWS_MAX
        out.print(f"[dim]{more:,} more rows; --format csv --out FILE has all[/]")
    requests = sum(line.sums.events for line in answer.lines)
    out.print(
        f"total {usd_display(answer.cost_nano_usd)}, {requests:,} requests "
        f"[dim](from {answer.source.value})[/]"
    )


def attribution_table(answer: Answer) -> TerminalTable:
    """The top of an answer; columns without any value are left out."""
    columns = columns_of(answer)
    rows = list(rows_of(answer))
    shown = [
        number
        for number, column in enumerate(columns)
        if column.name not in _NOT_ON_SCREEN
        and any(_worth_showing(column, row[number], answer) for row in rows)
    ]
    table = TerminalTable(
        [_heading(columns[number]) for number in shown],
        title=_title(answer),
        complete_in="--format csv",
    )
    for row in rows[:SCREEN_ROWS_MAX]:
        table.add(*(_cell(columns[number], row[number]) for number in shown))
    return table


def _heading(column: TableColumn) -> tables.Column:
    title = _SHORT.get(column.name, column.name)
    priority = None if column.name == "cost_usd" else _PRIORITY.get(column.name, 0)
    match column.kind:
        case ColumnKind.TEXT:
            return tables.fact(title) if column.name == "period" else tables.name(title)
        case ColumnKind.MONEY:
            return tables.money(title, priority)
        case ColumnKind.TIME:
            return tables.fact(title, priority)
        case ColumnKind.COUNT | ColumnKind.PPM:
            return tables.measure(title, priority)


def _title(answer: Answer) -> str:
    by = ", ".join(str(axis) for axis in answer.question.by) or "everything"
    zone = answer.question.calendar.time_zone
    return f"{by}, {answer.question.period.name} ({zone})"


def _worth_showing(column: TableColumn, value: Any, answer: Answer) -> bool:
    if column.name == "period":
        return answer.question.granularity is not Granularity.TOTAL
    return value is not None and (column.name != "unpriced" or value != 0)


def _cell(column: TableColumn, value: Any) -> tables.Cell:
    if value is None:
        return ""
    match column.kind:
        case ColumnKind.MONEY:
            return usd_display(value)
        case ColumnKind.PPM:
            return f"{percent_text(value).partition('.')[0]} %"
        case ColumnKind.COUNT:
            return f"{value} %" if column.name == "used_percent" else f"{value:,}"
        case ColumnKind.TIME:
            return rfc3339(value)[:16]
        case ColumnKind.TEXT:
            return str(value) or styled("none", "dim")


@report.command("role")
def role(
    organisation: Annotated[str, typer.Argument(help="Organisation whose rows the role may read.")],
    *,
    apply: Annotated[
        bool, typer.Option("--apply", help="Run the SQL; default: only print it.")
    ] = False,
    data: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Print or create a read-only ClickHouse role for one organisation's rows (server only)."""
    section = load_settings(data).clickhouse
    sql = statements(organisation, section.database, section.cluster)
    if not apply:
        sys.stdout.write("".join(f"{each};\n" for each in sql))
        return
    client = Client(clickhouse_config(load_settings(data)))
    try:
        for each in sql:
            client.command(each)
    finally:
        client.close()
    ready = markup(
        "role analyst_{organisation} is ready: GRANT it to a user", organisation=organisation
    )
    _progress.print(ready)

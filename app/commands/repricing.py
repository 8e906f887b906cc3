"""`meterline report whatif` and `meterline rerate`: the same usage at other prices."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from meterline.app import tables
from meterline.app.clock import now_ms
from meterline.app.commands.options import DataDir, Json
from meterline.app.commands.output import print_json
from meterline.app.commands.report import SCREEN_ROWS_MAX, waiting
from meterline.app.settings import DEFAULT_DATA_DIR, Settings, load_settings
from meterline.app.tables import Cell, TerminalTable, styled
from meterline.app.wiring import catalogue, clickhouse_config, kafka_config
from meterline.backends.clickhouse.client import Client
from meterline.control.audit_log import write_audit
from meterline.pricing.catalogue import Catalogue
from meterline.pricing.catalogue_reader import catalogue_files, load_catalogue
from meterline.reports.attribution.core.period import ReportPeriodError, read_period
from meterline.reports.attribution.core.question import QuestionError, read_axis
from meterline.reports.core.tabular import percent_text
from meterline.reports.repricing import rerate as rerating
from meterline.reports.repricing.catalogue_archive import archive_catalogue, read_catalogue
from meterline.reports.repricing.core.scenario import Scenario, read_swap
from meterline.reports.repricing.core.whatif import CostComparison, WhatIf
from meterline.reports.repricing.whatif import price_scenario
from meterline.schemas.errors import UserError
from meterline.schemas.money import divide_half_even, usd_display, usd_text
from meterline.schemas.periods import Calendar

_out = Console(highlight=False)
_PPM = 1_000_000
_CATALOGUE_HELP = (
    "A rate card file, laid over the configured ones, or a catalogue version that is or was in "
    "use (`meterline rates versions` lists them)."
)


def chosen_catalogue(settings: Settings, client: Client, text: str) -> Catalogue:
    """The catalogue of a `--catalogue` value: in use, with a file on top, or an earlier version."""
    in_use = catalogue(settings)
    if not text or in_use.version == text:
        return in_use
    path = Path(text)
    if path.is_file():
        return load_catalogue([*settings.catalogues, path])
    # What is in use here is not kept before a sink has started with it.
    archive_catalogue(client, catalogue_files(settings.catalogues), now_ms())
    return read_catalogue(client, text)


def what_if(
    model: Annotated[
        list[str] | None,
        typer.Option(help="OLD=NEW: price requests to model OLD as model NEW; may be repeated."),
    ] = None,
    prices: Annotated[str, typer.Option("--catalogue", help=_CATALOGUE_HELP)] = "",
    period: Annotated[
        str, typer.Option(help="Period, as of `report attribution`: 2026-10, 30d, ...")
    ] = "current_month",
    by: Annotated[
        str, typer.Option(help="Dimensions to group by, as of `report attribution`.")
    ] = "model",
    data: DataDir = DEFAULT_DATA_DIR,
    *,
    json_output: Json = False,
) -> None:
    """Price past usage at other models' or another catalogue's prices, and show the saving."""
    if not model and not prices:
        message = "say what to change: --model OLD=NEW, or --catalogue FILE"
        raise UserError(message)
    settings = load_settings(data)
    swaps = tuple(map(read_swap, model or ()))
    try:
        stretch = read_period(period, Calendar(settings.time_zone), now_ms())
        axes = tuple(read_axis(each.strip()) for each in by.split(",") if each.strip())
    except (ReportPeriodError, QuestionError) as error:
        raise UserError(str(error)) from error
    client = Client(clickhouse_config(settings))
    try:
        tried = chosen_catalogue(settings, client, prices)
        scenario = Scenario(tried, swaps, everything=bool(prices))
        with waiting("pricing requests"):
            answer = price_scenario(client, scenario, stretch, axes)
    finally:
        client.close()
    if json_output:
        print_json(what_if_json(answer, tried.version))
    else:
        show_what_if(_out, answer, tried.version)


def what_if_json(answer: WhatIf, version: str) -> dict[str, object]:
    """The answer as plain values."""
    names = [str(axis) for axis in answer.by]
    return {
        "period": answer.period.name,
        "price_version": version,
        "total": _compared(answer.total),
        "rows": [
            {**dict(zip(names, group, strict=True)), **_compared(each)}
            for group, each in answer.groups.items()
        ],
    }


def _compared(each: CostComparison) -> dict[str, object]:
    return {
        "requests": each.requests,
        "now_usd": usd_text(each.now_nano_usd),
        "then_usd": usd_text(each.then_nano_usd),
        "saving_usd": usd_text(each.saving_nano_usd),
        "saving_percent": _percent(each),
        "unpriced_now": each.unpriced_now,
        "unpriced_then": each.unpriced_then,
    }


def _percent(each: CostComparison) -> str | None:
    if each.now_nano_usd <= 0:
        return None
    return percent_text(divide_half_even(each.saving_nano_usd * _PPM, each.now_nano_usd))


def show_what_if(out: Console, answer: WhatIf, version: str) -> None:
    """Print the top of an answer for an operator."""
    out.print(what_if_table(answer, version))
    if len(answer.groups) > SCREEN_ROWS_MAX:
        out.print(f"[dim]{len(answer.groups) - SCREEN_ROWS_MAX:,} more rows; --json has all[/]")
    total = answer.total
    out.print(
        f"total {usd_display(total.now_nano_usd)} now, {usd_display(total.then_nano_usd)} then: "
        f"saves [bold]{usd_display(total.saving_nano_usd)}[/] of {total.requests:,} requests"
    )
    if total.unpriced_then:
        out.print(
            f"[yellow]{total.unpriced_then:,} requests have no price there[/] and count as now",
            soft_wrap=True,
        )
    if total.unpriced_now:
        out.print(f"[dim]{total.unpriced_now:,} requests have no price now and count 0 there[/]")


def what_if_table(answer: WhatIf, version: str) -> TerminalTable:
    """The top of an answer."""
    table = TerminalTable(
        [
            *(tables.name(str(axis)) for axis in answer.by),
            tables.measure("requests", 1),
            tables.money("now"),
            tables.money("then"),
            tables.money("saving"),
            tables.measure("%", 2),
        ],
        title=(
            f"{', '.join(map(str, answer.by)) or 'everything'}, {answer.period.name}, at {version}"
        ),
    )
    for group, each in list(answer.groups.items())[:SCREEN_ROWS_MAX]:
        names: list[Cell] = [value or styled("none", "dim") for value in group]
        table.add(*names, *_cells(each))
    return table


def _cells(each: CostComparison) -> list[str]:
    percent = _percent(each)
    return [
        f"{each.requests:,}",
        usd_display(each.now_nano_usd),
        usd_display(each.then_nano_usd),
        usd_display(each.saving_nano_usd),
        "" if percent is None else percent[:-3],
    ]


def rerate(
    prices: Annotated[str, typer.Option("--catalogue", help=_CATALOGUE_HELP)],
    period: Annotated[str, typer.Option(help="Period of the events: 2026-10, 2026-10-31, 7d, ...")],
    reason: Annotated[
        str, typer.Option(help="Reason, kept in the audit log and on the bill.")
    ] = "",
    actor: Annotated[
        str, typer.Option(help="Actor for the audit log; default: your user name.")
    ] = "",
    data: DataDir = DEFAULT_DATA_DIR,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change; write nothing.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Re-rate a period at other prices, by adjustments; the events stay as they are."""
    settings = load_settings(data)
    at_ms = now_ms()
    try:
        stretch = read_period(period, Calendar(settings.time_zone), at_ms)
    except ReportPeriodError as error:
        raise UserError(str(error)) from error
    why = rerating.RerateReason(actor or getpass.getuser(), "dry run" if dry_run else reason, at_ms)
    reader, writer = (Client(clickhouse_config(settings)) for _ in range(2))
    kafka = kafka_config(settings, "rerate")
    dependencies = rerating.RerateDependencies(
        reader, writer, lambda entry: write_audit(kafka, entry)
    )
    try:
        with waiting("pricing events"):
            found = rerating.rerate(
                dependencies,
                chosen_catalogue(settings, reader, prices),
                stretch,
                why,
                dry_run=dry_run,
            )
        if found.groups and not dry_run and Path(prices).is_file():
            # Adjustments name it: it must be stored to be used again.
            archive_catalogue(reader, catalogue_files([*settings.catalogues, Path(prices)]), at_ms)
    finally:
        reader.close()
        writer.close()
    if json_output:
        print_json(rerate_json(found, dry_run=dry_run))
    else:
        show_rerating(_out, found, dry_run=dry_run)


def rerate_json(found: rerating.Rerating, *, dry_run: bool) -> dict[str, object]:
    """What was adjusted, as plain values."""
    return {
        "period": found.period.name,
        "price_version": found.price_version,
        "dry_run": dry_run,
        "seen": found.seen,
        "unsettled": found.unsettled,
        "without_price": found.without_price,
        "total": _changed(found.total),
        "rows": [
            {**group._asdict(), **_changed(each)} for group, each in sorted(found.groups.items())
        ],
    }


def _changed(each: rerating.RerateChange) -> dict[str, object]:
    return {
        "events": each.events,
        "newly_priced": each.newly_priced,
        "difference_usd": usd_text(each.difference_nano_usd),
    }


def show_rerating(out: Console, found: rerating.Rerating, *, dry_run: bool) -> None:
    """Print what changes for an operator, the largest differences first."""
    total = found.total
    if found.groups:
        out.print(rerating_table(found))
    done = "would be adjusted" if dry_run else "adjusted"
    out.print(
        f"{total.events:,} of {found.seen:,} events {done}, "
        f"{usd_display(total.difference_nano_usd, 4)} in all"
    )
    for count, what in (
        (found.without_price, "have no price there and stay as they are"),
        (found.unsettled, "arrived in the last ten minutes: run it again later"),
    ):
        if count:
            out.print(f"[yellow]{count:,}[/] {what}")


def rerating_table(found: rerating.Rerating) -> TerminalTable:
    """The largest differences by department and model."""
    table = TerminalTable(
        [
            tables.name("department"),
            tables.name("model"),
            tables.measure("events", 2),
            tables.measure("had no price", 1),
            tables.money("difference"),
        ],
        title=f"{found.period.name} at {found.price_version}",
    )
    ranked = sorted(
        found.groups.items(), key=lambda each: (-abs(each[1].difference_nano_usd), each[0])
    )
    for group, each in ranked[:SCREEN_ROWS_MAX]:
        table.add(
            f"{group.organisation}/{group.department}",
            group.model,
            f"{each.events:,}",
            f"{each.newly_priced:,}",
            usd_display(each.difference_nano_usd, 4),
        )
    return table

"""`meterline replay` sends a trace through real emitters; `verify` compares it with the totals."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from meterline.app import tables
from meterline.app.clock import now_ms
from meterline.app.commands.options import DataDir, Json
from meterline.app.commands.output import print_json
from meterline.app.settings import DEFAULT_DATA_DIR, load_settings
from meterline.app.tables import TerminalTable, styled
from meterline.app.telemetry import set_up_logging
from meterline.app.wiring import catalogue, clickhouse_config, kafka_config, stop_on_signals
from meterline.operations.replay.engine import run_replay
from meterline.operations.replay.options import (
    ReplayHooks,
    ReplayOptions,
    ReplayProgress,
    TimeUnit,
    TraceFormat,
)
from meterline.operations.verify import VerifyOptions, VerifyReport, run_verify
from meterline.schemas.errors import UserError
from meterline.schemas.money import usd_display
from meterline.schemas.periods import parse_rfc3339

_out = Console(highlight=False, soft_wrap=True)
_errors = Console(stderr=True, highlight=False)
# Without a terminal, progress is a line every five seconds: a log stays short.
LINE_EVERY_SECONDS = 5.0


def replay(
    trace: Annotated[
        Path | None, typer.Argument(help="Trace file; none with --format synthetic.")
    ] = None,
    trace_format: Annotated[
        TraceFormat, typer.Option("--format", help="Layout of the trace.")
    ] = TraceFormat.AZURE,
    columns: Annotated[
        str, typer.Option(help="Columns of --format csv: time=COLUMN,input=COLUMN,output=COLUMN.")
    ] = "",
    time_unit: Annotated[TimeUnit, typer.Option(help="Unit of the time column.")] = TimeUnit.ISO,
    speed: Annotated[
        float, typer.Option(help="Trace seconds per second; 0: without pauses.")
    ] = 1.0,
    start: Annotated[
        str, typer.Option(help="RFC 3339 time of the first event; intervals stay as in the trace.")
    ] = "",
    relays: Annotated[int, typer.Option(help="Number of emitters.")] = 3,
    keys: Annotated[int, typer.Option(help="Number of API keys.")] = 200,
    departments: Annotated[int, typer.Option(help="Number of departments.")] = 8,
    organisation: Annotated[
        str, typer.Option(help="Organisation that the keys belong to.")
    ] = "acme",
    duplicates: Annotated[float, typer.Option(help="Share of events sent twice.")] = 0.0,
    late: Annotated[float, typer.Option(help="Share of events that arrive late.")] = 0.0,
    malformed: Annotated[float, typer.Option(help="Malformed messages per event.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of keys, users, models and faults.")] = 7,
    limit: Annotated[int, typer.Option(help="Maximum number of rows of the trace; 0: all.")] = 0,
    truth: Annotated[
        Path | None, typer.Option(help="Write the exact totals of what was sent to this file.")
    ] = None,
    data: DataDir = DEFAULT_DATA_DIR,
    *,
    json_output: Json = False,
) -> None:
    """Replay a trace as load: send it through real emitters to a running pipeline."""
    settings = load_settings(data)
    set_up_logging("replay", "warning")
    options = ReplayOptions(
        trace=trace,
        # Named columns say that it is a CSV of another layout than Azure's.
        format=TraceFormat.CSV if columns and trace_format is TraceFormat.AZURE else trace_format,
        columns=_columns(columns),
        time_unit=time_unit,
        speed=speed,
        start_ms=_start(start),
        relays=relays,
        keys=keys,
        departments=departments,
        organisation=organisation,
        duplicates=duplicates,
        late=late,
        malformed=malformed,
        seed=seed,
        limit=limit,
        time_zone=settings.time_zone,
    )
    stop = stop_on_signals()
    with _Shown() as shown:
        result = run_replay(
            options,
            kafka_config(settings, "replay"),
            now_ms,
            catalogue(settings),
            truth=truth,
            hooks=ReplayHooks(on_progress=shown.update, stop=stop),
        )
    done = result.progress
    if json_output:
        print_json(
            {
                "run_id": result.run_id,
                "events": done.sent,
                "duplicates": done.duplicates,
                "late": done.late,
                "malformed": result.malformed,
                "cost_nano_usd": done.cost_nano_usd,
                "seconds": round(done.elapsed_seconds, 3),
                "complete": result.complete,
                "truth": str(result.truth_written) if result.truth_written else None,
            }
        )
    else:
        _out.print(
            f"sent {done.sent:,} events ({usd_display(done.cost_nano_usd)}), "
            f"{done.duplicates:,} of them twice, {done.late:,} late, "
            f"in {done.elapsed_seconds:.1f} s"
        )
        if result.truth_written:
            _out.print(f"truth written to {result.truth_written}")
    raise typer.Exit(0 if result.complete else 1)


def verify(
    truth: Annotated[Path, typer.Option(help="Truth file, written by `replay --truth`.")],
    wait: Annotated[float, typer.Option(help="Seconds to wait for equality.")] = 0.0,
    data: DataDir = DEFAULT_DATA_DIR,
    *,
    json_output: Json = False,
) -> None:
    """Verify stream totals and ClickHouse against a replay's truth.

    Exit code 1 if different.
    """
    settings = load_settings(data)
    set_up_logging("verify", "warning")
    report = run_verify(
        VerifyOptions(truth, wait),
        kafka_config(settings, "verify"),
        clickhouse_config(settings),
        now_ms,
    )
    if json_output:
        print_json(report.as_json())
    else:
        show_report(_out, report)
    raise typer.Exit(0 if report.equal else 1)


def show_report(out: Console, report: VerifyReport) -> None:
    """Print a verdict and its figures for an operator."""
    verdict = "[bold green]equal[/]" if report.equal else "[bold red]different[/]"
    out.print(
        f"{verdict}: {report.events:,} events in {report.totals:,} totals "
        f"(scopes and windows), after {report.waited_seconds:.1f} s"
    )
    for name, amount, events in (
        ("streams", report.streams_diff_nano_usd, report.streams_diff_events),
        ("ClickHouse", report.clickhouse_diff_nano_usd, report.clickhouse_diff_events),
        ("window rows", report.windows_diff_nano_usd, report.windows_diff_events),
    ):
        out.print(f"  {name:<12} {amount:,} nano-USD, {events:,} events apart")
    out.print(f"  missing {report.missing:,}, extra {report.extra:,}")
    if report.differences:
        out.print(differences_table(report))


def differences_table(report: VerifyReport) -> TerminalTable:
    """The first totals that differ."""
    table = TerminalTable(
        [
            tables.fact("side"),
            tables.name("scope"),
            tables.fact("window"),
            tables.fact("period"),
            tables.money("expected, USD"),
            tables.money("found, USD"),
            tables.measure("events expected", 1),
            tables.measure("found", 2),
        ],
        indent=2,
    )
    for each in report.differences:
        table.add(
            styled(each.where, "red"),
            each.scope,
            each.window,
            each.period,
            each.expected_usd,
            each.found_usd,
            f"{each.expected_events:,}",
            f"{each.found_events:,}",
        )
    return table


def _columns(text: str) -> dict[str, str]:
    if not text:
        return {}
    pairs = [part.partition("=") for part in text.split(",")]
    if any(not sign or not column for _, sign, column in pairs):
        message = f"--columns {text}: write time=COLUMN,input=COLUMN,output=COLUMN"
        raise UserError(message)
    return {name.strip(): column.strip() for name, _, column in pairs}


def _start(text: str) -> int | None:
    if not text:
        return None
    try:
        return parse_rfc3339(text)
    except ValueError as error:
        message = f"--start {text}: write 2026-11-21T12:00:00Z"
        raise UserError(message) from error


class _Shown:
    """Progress on standard error: a bar on a terminal, elsewhere a line every few seconds."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._line_at = 0.0
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
                TimeRemainingColumn(),
                console=_errors,
                transient=True,
            )

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("replay", total=None)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, progress: ReplayProgress) -> None:
        """Show the progress."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=progress.sent, total=progress.total)
        elif progress.elapsed_seconds >= self._line_at:
            self._line_at = progress.elapsed_seconds + LINE_EVERY_SECONDS
            _errors.print(
                f"replay {progress.sent:,}/{progress.total:,} events, "
                f"{usd_display(progress.cost_nano_usd)}, "
                f"{progress.elapsed_seconds:.0f} s"
            )

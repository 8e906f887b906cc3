"""`meterline audit ...`: what auditors and data protection officers need."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from rich.console import Console

from meterline.app.clock import now_ms
from meterline.app.commands.options import DataDir, Json
from meterline.app.commands.output import print_json
from meterline.app.printable import markup, visible
from meterline.app.settings import DEFAULT_DATA_DIR, Settings, load_settings
from meterline.app.wiring import clickhouse_config, kafka_config
from meterline.backends.clickhouse.client import Client
from meterline.control.audit_log import write_audit
from meterline.reports.attribution.core.period import ReportPeriod, ReportPeriodError, read_period
from meterline.reports.audit.core.chain import DayRoot, find_break, roots, verify_roots
from meterline.reports.audit.core.export import Aggregate, AuditExport, ExportFormat
from meterline.reports.audit.core.ocsf import OCSF_VERSION, ocsf_event
from meterline.reports.audit.export import export_text, write_parquet
from meterline.reports.audit.store import (
    DataClass,
    erase,
    read_actions,
    read_links,
    read_retention,
    seal,
    set_retention,
)
from meterline.schemas.audit import AuditEntry
from meterline.schemas.errors import UserError
from meterline.schemas.periods import Calendar

audit = typer.Typer(
    help="Audit exports, the log of actions, erasure of personal data.", no_args_is_help=True
)
_out = Console(highlight=False, soft_wrap=True)
_progress = Console(stderr=True, highlight=False)
# A long export prints its progress every 64 MiB: about once a second.
PROGRESS_BYTES = 64 * 1024 * 1024


@contextmanager
def _store(settings: Settings) -> Iterator[Client]:
    client = Client(clickhouse_config(settings))
    try:
        yield client
    finally:
        client.close()


@dataclass(slots=True)
class _Part:
    """A file that gets its name only once it is complete."""

    path: Path | None

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        if self.path is None:
            yield sys.stdout.buffer
            sys.stdout.flush()
            return
        part = self.path.with_name(self.path.name + ".part")
        with part.open("wb") as file:
            yield file
        part.replace(self.path)


@audit.command("export")
def export(
    period: Annotated[
        str, typer.Option(help="Period, as of `report attribution`: 2026-10, 7d, ...")
    ],
    form: Annotated[
        ExportFormat, typer.Option("--format", help="Format of the export.")
    ] = ExportFormat.CSV,
    aggregate: Annotated[
        Aggregate, typer.Option(help="Sum by this; none: one row per request.")
    ] = Aggregate.NONE,
    organisation: Annotated[str, typer.Option(help="Only this organisation.")] = "",
    out: Annotated[
        Path | None, typer.Option(help="Write to this file instead of standard output.")
    ] = None,
    data: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Export every request with key, user, model, tokens, cost and origin, in constant memory."""
    settings = load_settings(data)
    wanted = AuditExport(_period(period, settings), organisation, aggregate)
    if form is ExportFormat.PARQUET and out is None and sys.stdout.isatty():
        message = "parquet is for files: add --out FILE"
        raise UserError(message)
    with _store(settings) as client, _Part(out).opened() as file:
        if form is ExportFormat.PARQUET:
            rows = write_parquet(client, wanted, file)
            _progress.print(f"{rows:,} rows")
            return
        written = printed = 0
        for piece in export_text(client, wanted, form):
            file.write(piece)
            written += len(piece)
            if written - printed >= PROGRESS_BYTES and _progress.is_terminal:
                printed = written
                _progress.print(f"{written // 1_000_000:,} MB ...")
        if out is not None:
            _progress.print(f"{written / 1_000_000:,.1f} MB in {out}")


def _period(text: str, settings: Settings) -> ReportPeriod:
    try:
        return read_period(text, Calendar(settings.time_zone), now_ms())
    except ReportPeriodError as error:
        raise UserError(str(error)) from error


class LogFormat(StrEnum):
    """Formats of the audit log."""

    JSONL = "jsonl"
    OCSF = "ocsf"


@audit.command("log")
def log(
    form: Annotated[
        LogFormat,
        typer.Option("--format", help=f"Format; ocsf: OCSF {OCSF_VERSION} events for a SIEM."),
    ] = LogFormat.JSONL,
    out: Annotated[
        Path | None, typer.Option(help="Write to this file instead of standard output.")
    ] = None,
    data: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Print administrative actions as JSON lines, each with its number and hashes in the chain."""
    with _store(load_settings(data)) as client, _Part(out).opened() as file:
        seal(client)
        links = {link.version: link for link in read_links(client)}
        for action in read_actions(client):
            link = links.get(action.version)
            if form is LogFormat.OCSF:
                written = ocsf_event(action, link, version("meterline"))
            else:
                chained = ("seq", "row_hash", "hash") if link else ()
                written = {**action._asdict(), **{name: getattr(link, name) for name in chained}}
            file.write(json.dumps(written).encode() + b"\n")


@audit.command("seal")
def seal_actions(data: DataDir = DEFAULT_DATA_DIR, *, json_output: Json = False) -> None:
    """Add new administrative actions to the hash chain; sinks do so every 30 seconds."""
    with _store(load_settings(data)) as client:
        sealed = seal(client)
    if json_output:
        print_json({"sealed": sealed})
    else:
        _out.print(f"{sealed:,} actions sealed")


@audit.command("roots")
def show_roots(data: DataDir = DEFAULT_DATA_DIR) -> None:
    """Print the Merkle root of each day as a JSON line; keep them outside this database."""
    with _store(load_settings(data)) as client:
        seal(client)
        for root in roots(read_links(client)):
            print_json(root._asdict())


@audit.command("verify")
def verify_chain(
    kept: Annotated[
        Path | None,
        typer.Option(
            "--roots", help="File with lines of `audit roots`, kept outside this database."
        ),
    ] = None,
    data: DataDir = DEFAULT_DATA_DIR,
    *,
    json_output: Json = False,
) -> None:
    """Recompute the hash chain over the audit log.

    Exit code 1 at a break, with its place.
    """
    expected = _kept_roots(kept)
    with _store(load_settings(data)) as client:
        links = list(read_links(client))
        finding = find_break(read_actions(client), links) or verify_roots(links, expected)
    if json_output:
        broken = finding._asdict() if finding else None
        print_json({"actions": len(links), "roots": len(expected), "break": broken})
    elif finding is None:
        compared = f", {len(expected):,} days match their kept roots" if expected else ""
        _out.print(f"[green]unbroken:[/] {len(links):,} actions{compared}")
    else:
        _out.print(
            markup(
                f"[red]broken ({finding.kind.value}) at {finding.seq}:[/] {{detail}}",
                detail=finding.detail,
            )
        )
    raise typer.Exit(1 if finding else 0)


def _kept_roots(path: Path | None) -> list[DayRoot]:
    if path is None:
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [DayRoot(**json.loads(line)) for line in lines if line]
    except (ValueError, TypeError) as error:
        message = f"{path}: not lines of `meterline audit roots`: {error}"
        raise UserError(message) from error


@audit.command("erase")
def erase_subject(
    subject: Annotated[
        str, typer.Argument(help="E-mail, user id or IP address, as relays send it.")
    ],
    organisation: Annotated[str, typer.Option(help="Organisation of the subject.")],
    reason: Annotated[
        str, typer.Option(help="Reason, for the audit log; must not name the subject.")
    ],
    actor: Annotated[
        str, typer.Option(help="Actor for the audit log; default: your user name.")
    ] = "",
    data: DataDir = DEFAULT_DATA_DIR,
    *,
    json_output: Json = False,
) -> None:
    """Erase a person's e-mail, address and software; totals and hash chains stay as they are."""
    if subject in reason or not subject:
        message = "the reason must not name the subject: the audit log keeps it indefinitely"
        raise UserError(message)
    settings = load_settings(data)
    with _store(settings) as client:
        # 1. Erase. A crash after it leaves an erasure without an entry: erase again.
        erased = erase(client, organisation, subject, settings.clickhouse.cluster)
    # 2. Record that it was done, without naming the subject.
    at_ms = now_ms()
    entry = AuditEntry(
        id=f"erase-{organisation}-{at_ms}",
        at_ms=at_ms,
        actor=actor or getpass.getuser(),
        action="personal.erased",
        object_id=f"organisation:{organisation}",
        reason=reason,
        after=json.dumps(erased._asdict()),
    )
    write_audit(kafka_config(settings, "audit"), entry)
    if json_output:
        print_json(erased._asdict())
    elif not any(erased):
        _out.print(
            f"nothing is stored of this subject in {visible(organisation)}; the request is recorded",
            markup=False,
            emoji=False,
        )
    else:
        _out.print(f"erased {erased.persons:,} records, cleared {erased.letters:,} dead letters")


@audit.command("retention")
def retention(
    kind: Annotated[
        DataClass | None, typer.Option("--class", help="Class of data to change.")
    ] = None,
    days: Annotated[
        int | None, typer.Option(min=0, help="Days to keep the class; 0: indefinitely.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Reason, for the audit log.")] = "",
    actor: Annotated[
        str, typer.Option(help="Actor for the audit log; default: your user name.")
    ] = "",
    data: DataDir = DEFAULT_DATA_DIR,
    *,
    json_output: Json = False,
) -> None:
    """Show or set how long each class of data is kept."""
    if (kind is None) != (days is None):
        message = "to change a class name both: --class personal --days 180 (0: indefinitely)"
        raise UserError(message)
    settings = load_settings(data)
    cluster = settings.clickhouse.cluster
    with _store(settings) as client:
        found = read_retention(client, cluster)
        if kind is not None and days is not None and found[kind] != (days or None):
            # 1. The audit entry first: no data goes without a record of who ordered it.
            write_audit(
                kafka_config(settings, "audit"),
                AuditEntry(
                    id=f"retention-{kind.value}-{now_ms()}",
                    at_ms=now_ms(),
                    actor=actor or getpass.getuser(),
                    action="retention.changed",
                    object_id=f"retention:{kind.value}",
                    reason=reason,
                    before=json.dumps({"days": found[kind]}),
                    after=json.dumps({"days": days or None}),
                ),
            )
            # 2. Apply it.
            set_retention(client, kind, days, cluster)
            found = read_retention(client, cluster)
    if json_output:
        print_json({each.value: kept for each, kept in found.items()})
        return
    for each, kept in found.items():
        _out.print(f"{each.value:<9} {f'{kept:,} days' if kept else 'indefinitely'}")

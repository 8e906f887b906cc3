"""The last act: last month's usage arrives late, is counted everywhere, and the month is closed.

Nothing is set up for it: a relay client sends events that are dated in the month before, as a relay
that was cut off would; streams and sink count them into that month; the close finds no lag and no
drift, and books it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path

from rich.text import Text

from meterline.app import tables
from meterline.app.clock import now_ms
from meterline.app.settings import DEFAULT_DATA_DIR, Settings
from meterline.app.tables import TerminalTable
from meterline.app.wiring import kafka_config, pipeline
from meterline.operations.close import close_dependencies
from meterline.operations.replay.assign import Assigner
from meterline.operations.replay.synthetic import synthetic_trace
from meterline.relay.client import RelayClient
from meterline.relay.settings import RelaySettings, SpoolSettings
from meterline.reports.booking.core.months import Month, month_at, month_before
from meterline.reports.close.close import CloseOutcome, CloseResult, close_month
from meterline.schemas.errors import UserError
from meterline.schemas.metrics import NoMeter

EVENTS = 3_000
"""A second's work for the pipeline, and enough for charts."""
DRAIN_SECONDS = 15.0
CLOSE_SECONDS_MAX = 60.0
"""Streams and sink have stored the events within seconds; the close itself takes two."""
POLL_SECONDS = 0.5
RELAY = "relay-late"
ORGANISATION = "acme"
KEPT_DIRECTORY = DEFAULT_DATA_DIR / "demo"
"""Directory of the closed month when the demonstration deletes its data."""
BAR_CELLS = 16


def last_month(settings: Settings) -> Month:
    """The month that is closed: the last one before now."""
    return month_before(month_at(now_ms(), settings.time_zone), settings.time_zone)


def send_last_month(settings: Settings, month: Month, seed: int) -> int:
    """Send the events of a month through a relay client; the number accepted."""
    run = f"demo-late-{now_ms():x}"
    step_ms = (month.end_ms - month.start_ms) // EVENTS
    assigner = Assigner(organisation=ORGANISATION, keys=200, departments=8, seed=seed)
    with tempfile.TemporaryDirectory(prefix="meterline-spool-") as folder:
        spool = SpoolSettings(Path(folder))
        client = RelayClient(
            RelaySettings(RELAY, kafka_config(settings, RELAY), spool), now_ms, NoMeter()
        )
        client.start()
        for number, row in enumerate(synthetic_trace(seed, EVENTS)):
            at_ms = month.start_ms + number * step_ms
            client.record(assigner.event(row, f"{run}-{number}:1", at_ms, RELAY))
        if not client.close(DRAIN_SECONDS):
            message = "the demonstration's last act could not send its events"
            raise UserError(message)
    return EVENTS


def close_last_month(settings: Settings, month: Month) -> CloseResult:
    """Close as soon as everything is counted.

    Raises:
        UserError: it was refused until the time was over; the message says why.
    """
    deadline = time.monotonic() + CLOSE_SECONDS_MAX
    with close_dependencies(pipeline(settings), lambda _step: None) as dependencies:
        while True:
            result = close_month(dependencies, month.name, now_ms(), actor="demo", early=True)
            if result.outcome is not CloseOutcome.REFUSED:
                return result
            if time.monotonic() > deadline:
                reasons = "; ".join(map(str, result.blockers))
                message = f"{month.name} could not be closed: {reasons}"
                raise UserError(message)
            time.sleep(POLL_SECONDS)


def keep_closed(directory: Path) -> Path:
    """Copy a closed month out of a directory that will be deleted; the new directory.

    The last demonstration's copy is replaced.
    """
    target = KEPT_DIRECTORY.absolute() / directory.parent.name / directory.name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(directory, target)
    return target


def bill_table(directory: Path) -> TerminalTable:
    """The departments of a closed month as billed, the costliest first."""
    bill = json.loads((directory / ORGANISATION / "bill.json").read_bytes())
    currency = bill["currency"]
    table = TerminalTable(
        [
            tables.name("department"),
            tables.name("cost centre"),
            tables.money("amount"),
            tables.measure("share", 2),
            tables.fact("", 1),
            tables.measure("budget used", 3),
        ],
        title=f"bill of {bill['name']}, {bill['period']}: {bill['summary']['amount']} {currency}",
        complete_in="the bill",
    )
    for each in bill["departments"]:
        # One decimal place, as text; the bar needs whole per cent.
        share = each["share_percent"] or "0.0"
        cells = max(int(share.partition(".")[0]), 0) * BAR_CELLS // 100
        used = each["budget_used_percent"]
        bar = Text("█" * cells, "red" if each["over_budget"] else "green")
        table.add(
            each["department"],
            each["cost_center"],
            f"{each['amount']} {currency}",
            f"{share} %",
            bar.append("·" * (BAR_CELLS - cells), "dim"),
            "" if used is None else f"{used} %",
        )
    return table

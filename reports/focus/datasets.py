"""The FOCUS files of a close: Cost and Usage, streamed, and Billing Period."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path
from typing import NamedTuple

from meterline.backends.clickhouse.client import Client
from meterline.reports.booking.core.inputs import FrozenInputs
from meterline.reports.core.csv_text import csv_bytes
from meterline.reports.focus.core.focus_rows import COLUMNS, ISSUER, RowMaker
from meterline.reports.focus.reader import read_line_days, read_lines
from meterline.schemas.money import NanoUsd
from meterline.schemas.periods import rfc3339

COST_AND_USAGE = "focus-cost-and-usage.csv"
BILLING_PERIOD = "focus-billing-period.csv"


class FocusSums(NamedTuple):
    """What a Cost and Usage file adds up to."""

    rows: int
    cost_nano_usd: NanoUsd


def write_cost_and_usage(
    client: Client, inputs: FrozenInputs, folders: dict[str, Path]
) -> dict[str, FocusSums]:
    """Write every organisation's file, day by day; at most a day's lines are held.

    Args:
        client: the store.
        inputs: of the close.
        folders: organisation to the directory its file goes to.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    maker = RowMaker(inputs)
    days: dict[str, list[date]] = {name: [] for name in folders}
    for organisation, day in read_line_days(client, inputs.run):
        days[organisation].append(day)
    sums: dict[str, FocusSums] = {}
    for organisation, folder in folders.items():
        rows, cost = 0, 0
        with (folder / COST_AND_USAGE).open("w", encoding="utf-8", newline="") as file:
            file.write(",".join(COLUMNS) + "\r\n")
            for day in days[organisation]:
                for line in read_lines(client, inputs.run, organisation, day):
                    made = maker.rows(line)
                    file.writelines(made)
                    cost += line.cost_nano_usd
                    rows += len(made)
            file.flush()
            os.fsync(file.fileno())
        sums[organisation] = FocusSums(rows, cost)
    return sums


def billing_period_bytes(inputs: FrozenInputs) -> bytes:
    """The Billing Period dataset: the month, and that it is closed."""
    closed_at = rfc3339(inputs.closed_at_ms)[:19] + "Z"
    row = {
        "BillingPeriodCreated": rfc3339(inputs.start_ms)[:19] + "Z",
        "BillingPeriodEnd": rfc3339(inputs.end_ms)[:19] + "Z",
        "BillingPeriodLastUpdated": closed_at,
        "BillingPeriodStart": rfc3339(inputs.start_ms)[:19] + "Z",
        "BillingPeriodStatus": "Open" if inputs.draft else "Closed",
        "InvoiceIssuerName": ISSUER,
    }
    return csv_bytes(list(row), [list(row.values())])

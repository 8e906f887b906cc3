"""Rows of usage_events back to events."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from meterline.schemas.tables import USAGE_EVENTS
from meterline.schemas.usage import UsageEvent
from meterline.sinks.core.stored_events import STORED_COLUMNS, stored_event
from meterline.sinks.core.usage_rows import BOUNDS, default_of, usage_rows
from meterline.streams.core.identity import digests

NOW_MS = 1_793_000_000_000
FULL = UsageEvent(
    id="e-1",
    time_ms=NOW_MS,
    organisation="acme",
    key="k-1",
    model="m",
    department="research",
    project="p",
    user="u",
    input_tokens=10,
    cache_read_tokens=3,
    reported_cost_nano_usd=1_234_567_890,
    stream=True,
    latency_ms=12,
    tags={"b": "2", "a": "1"},
    trace_parent="00-1",
)


class Price:
    cost_nano_usd, priced, model, price_version = 1, True, "m", "v"


def as_read(event: UsageEvent) -> tuple[Any, ...]:
    """What a query of STORED_COLUMNS answers for the row of this event."""
    rows = usage_rows(msgspec.json.encode(event), NOW_MS, 0, 0, 0, lambda _: Price())
    assert rows is not None
    defaults = {column.name: default_of(column) for column in USAGE_EVENTS.columns}
    defaults |= dict.fromkeys(("user_email", "client_ip", "user_agent"), "")
    values = {name: column[0] for name, column in rows.columns.items()}
    # As the question joins them.
    for person in rows.personal_data:
        values |= {
            "user_email": person.user_email,
            "client_ip": person.client_ip,
            "user_agent": person.user_agent,
        }
    row = []
    for expression in STORED_COLUMNS:
        name = "event_time" if "event_time" in expression else expression.strip("`")
        value = values.get(name, defaults[name])
        if name == "reported_cost_usd" and value is not None:
            value = Decimal(value).scaleb(-9)
        row.append(bool(value) if name == "stream" else value)
    return tuple(row)


@pytest.mark.parametrize(
    "event",
    [
        FULL,
        UsageEvent(id="e", time_ms=NOW_MS, organisation="acme", key="k", model="m"),
        msgspec.structs.replace(FULL, latency_ms=2**40, reported_cost_nano_usd=10**19),
        msgspec.structs.replace(FULL, reported_cost_nano_usd=0, tags={}),
    ],
)
def test_a_stored_event_is_the_event_that_was_sent(event: UsageEvent) -> None:
    """Also where a column was too narrow and the value stands in `extra`."""
    assert BOUNDS
    assert stored_event(as_read(event)) == event


def test_no_department_and_unassigned_are_one_body() -> None:
    """They are stored alike, so a re-send after a rebuild must be a duplicate either way."""
    named = msgspec.structs.replace(FULL, department="unassigned")
    silent = msgspec.structs.replace(FULL, department="")
    assert stored_event(as_read(named)) == stored_event(as_read(silent)) == silent
    assert digests(named) == digests(silent)
    assert digests(named) != digests(FULL)

"""Three simulated months through the real ledgers: what is kept, and what is given back.

Time is an argument of the ledgers, so a quarter takes seconds: a message every hour per
partition, flushed each time, with the changelog compacted as Kafka does it. The month totals are
added up beside it with plain dictionaries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from meterline.schemas.codec import decode_usage
from meterline.schemas.periods import DAY_MS, HOUR_MS, Calendar, WindowKind
from meterline.schemas.scopes import scopes_of
from meterline.schemas.spend import INTERNAL_PREFIX, decode_snapshot
from meterline.schemas.usage import UsageBatch, UsageEvent
from meterline.streams.core.changelog import LedgerFactory, Replica
from meterline.streams.core.entries import Retention
from meterline.streams.core.ledger import LedgerPolicy

START_MS = 1_764_543_600_000
"""2025-12-01 in Berlin: the months before the clocks change, and the day they do."""
TIME_ZONE = "Europe/Berlin"
STEP_MS = HOUR_MS
DAYS = 31 + 31 + 28
KEYS = 6
# As shipped, but for days, which would all be kept.
RETENTION = Retention(day_ms=12 * DAY_MS)
EVENTS_PER_MESSAGE = 10
COST_NANO_USD = 1_000_003
# Small, so that the ring of ids goes round several times.
IDS_HORIZON = PENDING_EVENTS_MAX = 1_000


class Day(NamedTuple):
    """What is held at the end of a day."""

    entries: int
    """In the table."""
    log_keys: int
    """In the compacted changelog, bookkeeping left out."""
    due: int
    """Waiting for their expiry."""
    bookkeeping_bytes: int
    """State record and id slots."""


class Report(NamedTuple):
    """The outcome."""

    days: list[Day]
    events: int
    wrong_months: int
    """Month totals, in table or log, that are not the sums of what was sent."""


def entries_bound(partitions: int, keys: int, retention: Retention) -> int:
    """The most entries that retention allows.

    An event is late by a quarter of an hour at most, so an entry may be kept for two retentions:
    from its window's end, and once more from a late addition. A few more windows of each kind are
    open, or wait for the flush after their hour.
    """
    scopes = partitions * (1 + 3 + keys)
    waiting = 5
    # Each of a message's events has its own minute, in three scopes.
    minutes = partitions * EVENTS_PER_MESSAGE * 3 * (2 * retention.minute_ms // STEP_MS + waiting)
    windows = 2 * retention.hour_ms // HOUR_MS + 2 * retention.day_ms // DAY_MS + 4 + 2 * waiting
    return minutes + scopes * windows


def simulate(
    partitions: int = 2, keys: int = KEYS, report: Callable[[int], None] | None = None
) -> Report:
    """Run the three months.

    Args:
        partitions: ledgers of one worker.
        keys: API keys, each in every partition.
        report: called at the end of each day with its number.
    """
    policy = LedgerPolicy(
        source_topic="usage.events",
        ids_horizon=IDS_HORIZON,
        pending_events_max=PENDING_EVENTS_MAX,
        retention=RETENTION,
    )
    calendar = Calendar(TIME_ZONE)
    replica = Replica({}, LedgerFactory(policy, calendar, lambda _event: (COST_NANO_USD, True)))
    replica.recover(set(range(partitions)))
    log: dict[bytes, bytes] = {}
    wanted: dict[tuple[str, int], int] = {}
    days: list[Day] = []
    events = 0
    for step in range(DAYS * DAY_MS // STEP_MS):
        now_ms = START_MS + step * STEP_MS
        for partition in range(partitions):
            batch = _batch(partition, step, now_ms, keys)
            events += len(batch.events)
            _count(batch, calendar, wanted)
            message = decode_usage(msgspec.json.encode(batch), now_ms)
            replica.ledgers[partition].apply(message, step, now_ms)
        for flush in replica.take_flush().values():
            for key, value in (*flush.entries, flush.state):
                if value is None:
                    log.pop(key, None)
                else:
                    log[key] = value
        if (step + 1) * STEP_MS % DAY_MS == 0:
            days.append(_day(replica, log))
            if report is not None:
                report(len(days))
    return Report(days, events, _wrong(replica, log, wanted))


def _batch(partition: int, step: int, now_ms: int, keys: int) -> UsageBatch:
    events = tuple(
        UsageEvent(
            id=f"{partition}-{step}-{number}",
            # Up to a quarter of an hour late: some fall into the month before.
            time_ms=now_ms - number * 90_000,
            organisation="acme",
            department=f"d-{(step + number) % 3}",
            key=f"k-{(step * EVENTS_PER_MESSAGE + number) % keys}",
            model="m",
            input_tokens=number,
        )
        for number in range(EVENTS_PER_MESSAGE)
    )
    # A relay that restarts every day: its old lanes have to go as well.
    lane = f"relay/{now_ms // DAY_MS}/{partition}"
    first = -(-(now_ms // DAY_MS * DAY_MS - START_MS) // STEP_MS)
    return UsageBatch(lane=lane, seq=step - max(first, 0) + 1, events=events)


def _count(batch: UsageBatch, calendar: Calendar, wanted: dict[tuple[str, int], int]) -> None:
    for event in batch.events:
        month = calendar.window(WindowKind.MONTH, event.time_ms).start_ms
        for scope in scopes_of(event.organisation, event.department, "", "", event.key):
            wanted[scope, month] = wanted.get((scope, month), 0) + COST_NANO_USD


def _day(replica: Replica, log: dict[bytes, bytes]) -> Day:
    internal = f'["{INTERNAL_PREFIX}'.encode()
    own = [key for key in log if key.startswith(internal)]
    return Day(
        len(replica.entries),
        len(log) - len(own),
        sum(ledger.scheduled for ledger in replica.ledgers.values()),
        sum(len(log[key]) for key in own),
    )


def _wrong(replica: Replica, log: dict[bytes, bytes], wanted: dict[tuple[str, int], int]) -> int:
    calendar = Calendar(TIME_ZONE)
    table: dict[tuple[str, int], int] = {}
    for ((scope, _), window), entry in replica.entries.items():
        if calendar.window(WindowKind.MONTH, window[0])[1:] == window:
            table[scope, window[0]] = table.get((scope, window[0]), 0) + entry.cost_nano_usd
    read: dict[tuple[str, int], int] = {}
    for key, value in log.items():
        snapshot = decode_snapshot(key, value)
        if snapshot is None or snapshot.totals is None or snapshot.key.kind != WindowKind.MONTH:
            continue
        place = (snapshot.key.scope, snapshot.key.start_ms)
        read[place] = read.get(place, 0) + snapshot.totals.cost_nano_usd
    places = wanted.keys() | table.keys() | read.keys()
    return sum(not wanted.get(at) == table.get(at) == read.get(at) for at in places)

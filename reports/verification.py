"""Is every event that was sent stored once, and nothing else? Ids against ids."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from meterline.backends.clickhouse.client import Client
from meterline.reports.core.verification import (
    EXAMPLES_MAX,
    IDS_PER_PAGE,
    EventRange,
    IdCheck,
    StoredEventCount,
    StoredEvents,
    StoredIds,
)
from meterline.schemas.money import nano_from_usd


def read_stored(client: Client, events: EventRange) -> StoredEventCount:
    """Count what is stored.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    rows, distinct, cost = client.query(*StoredEvents(events).build())[0]
    return StoredEventCount(rows, distinct, nano_from_usd(str(cost)))


def check_ids(client: Client, events: EventRange, sent: Collection[str]) -> IdCheck:
    """Compare the stored ids of a range with those that were sent in it.

    Args:
        client: the store.
        events: the range to read.
        sent: every id sent in that range; held once more as a set.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    unseen = set(sent)
    extra = 0
    extra_examples: list[str] = []
    for event_id, rows in _stored_ids(client, events):
        surplus = rows - 1 if event_id in unseen else rows
        unseen.discard(event_id)
        extra += surplus
        if surplus and len(extra_examples) < EXAMPLES_MAX:
            extra_examples.append(event_id)
    return IdCheck(len(unseen), extra, tuple(sorted(unseen)[:EXAMPLES_MAX]), tuple(extra_examples))


def _stored_ids(client: Client, events: EventRange) -> Iterator[tuple[str, int]]:
    after = ""
    while True:
        page = client.query(*StoredIds(events, after).build())
        yield from page
        if len(page) < IDS_PER_PAGE:
            return
        after = page[-1][0]

"""Pure: which cells (departments' UTC days) a batch of stored rows touched: rows of usage_changes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from meterline.schemas.periods import DAY_MS
from meterline.schemas.tables import USAGE_CHANGES
from meterline.sinks.core.usage_rows import Block, RowIdentity, UsageRows
from meterline.sinks.core.versions import invalidation_version


class RollupBucket(NamedTuple):
    """What the roll-up counts at once."""

    organisation: str
    department: str
    day: int
    """UTC days since 1970."""


class RollupInvalidation(NamedTuple):
    """What one record touched, and where it stands."""

    cells: frozenset[RollupBucket]
    shard: str
    offset: int


def buckets_of(rows: UsageRows) -> frozenset[RollupBucket]:
    """The cells of one message's rows."""
    columns = rows.columns
    days = [time_ms // DAY_MS for time_ms in columns["event_time"]]
    touched = set(zip(columns["organisation"], columns["department"], days, strict=True))
    return frozenset(RollupBucket(*each) for each in touched)


def buckets_of_identities(identities: Iterable[RowIdentity]) -> frozenset[RollupBucket]:
    """The cells of rows that are taken back."""
    return frozenset(
        RollupBucket(each.organisation, each.department, each.event_time // DAY_MS)
        for each in identities
    )


def invalidations_block(epoch: int, touched: Iterable[RollupInvalidation]) -> Block:
    """One row per cell and shard, with the greatest version; at least one record."""
    newest: dict[tuple[RollupBucket, str], int] = {}
    for cells, shard, offset in touched:
        version = invalidation_version(epoch, offset)
        for cell in cells:
            place = (cell, shard)
            newest[place] = max(version, newest.get(place, 0))
    rows = [(*cell, shard, version) for (cell, shard), version in newest.items()]
    return Block(USAGE_CHANGES.columns, list(zip(*rows, strict=True)), len(rows))

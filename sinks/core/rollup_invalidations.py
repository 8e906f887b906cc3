"""Pure: roll-up invalidations, rows of usage_changes.

A bucket is what the roll-up counts and replaces at once, a department's UTC day. Storing rows of a
bucket makes it dirty: an invalidation with a greater version than the roll-up has counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from meterline.schemas.periods import DAY_MS
from meterline.schemas.tables import USAGE_CHANGES
from meterline.sinks.core.usage_rows import Block, RowIdentity, UsageRows
from meterline.sinks.core.versions import invalidation_version


class RollupBucket(NamedTuple):
    """A department's UTC day."""

    organisation: str
    department: str
    day: int
    """UTC days since 1970."""


class RollupInvalidation(NamedTuple):
    """The buckets that one record makes dirty, and the record's position."""

    buckets: frozenset[RollupBucket]
    shard: str
    offset: int


def buckets_of(rows: UsageRows) -> frozenset[RollupBucket]:
    """The buckets of one message's rows."""
    columns = rows.columns
    days = [time_ms // DAY_MS for time_ms in columns["event_time"]]
    dirty = set(zip(columns["organisation"], columns["department"], days, strict=True))
    return frozenset(RollupBucket(*each) for each in dirty)


def buckets_of_identities(identities: Iterable[RowIdentity]) -> frozenset[RollupBucket]:
    """The buckets of rows that are retracted."""
    return frozenset(
        RollupBucket(each.organisation, each.department, each.event_time // DAY_MS)
        for each in identities
    )


def invalidations_block(epoch: int, invalidations: Iterable[RollupInvalidation]) -> Block:
    """One row per bucket and shard, with the greatest version; of at least one record."""
    newest: dict[tuple[RollupBucket, str], int] = {}
    for buckets, shard, offset in invalidations:
        version = invalidation_version(epoch, offset)
        for bucket in buckets:
            key = (bucket, shard)
            newest[key] = max(version, newest.get(key, 0))
    rows = [(*bucket, shard, version) for (bucket, shard), version in newest.items()]
    return Block(USAGE_CHANGES.columns, list(zip(*rows, strict=True)), len(rows))

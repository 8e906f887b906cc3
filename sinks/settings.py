"""Settings of the sink: bounds of memory, waits, and when a batch is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from meterline.schemas.groups import Group, group_spec
from meterline.schemas.topics import Topic
from meterline.sinks.core.batch import FlushPolicy

# Large blocks are what ClickHouse is fast at: 100,000 rows of 50 columns are one part of about
# 3 MB, and larger parts are merged less often. The age bounds how late a row is visible; the bytes
# bound memory (decoded events take twice their bytes, and one batch is written while the next is
# read).
USAGE_POLICY = FlushPolicy(rows_max=100_000, bytes_max=40_000_000, age_ms_max=400)
# Snapshots are replaced many times a second; within the age only the newest of a key is kept, so
# a longer one saves inserts. 20,000 keys are more than 4,000 active API keys have windows.
SPEND_POLICY = FlushPolicy(rows_max=20_000, bytes_max=8_000_000, age_ms_max=1_000)
# Alerts, commands, dead letters and audits are few, and operators wait for them.
CONTROL_POLICY = FlushPolicy(rows_max=5_000, bytes_max=8_000_000, age_ms_max=400)


def _policies() -> Mapping[Topic, FlushPolicy]:
    special = {Topic.USAGE_EVENTS: USAGE_POLICY, Topic.SPEND_SNAPSHOTS: SPEND_POLICY}
    topics = group_spec(Group.SINK).topics
    return MappingProxyType({topic: special.get(topic, CONTROL_POLICY) for topic in topics})


@dataclass(frozen=True, slots=True)
class SinkSettings:
    """Settings of one sink process."""

    epoch: int = 0
    """Generation of the Kafka log; raised by one when a broker lost its data."""
    group: str = Group.SINK.value
    """Consumer group: more processes of the same group share the partitions."""
    policies: Mapping[Topic, FlushPolicy] = field(default_factory=_policies)
    poll_records_max: int = 100
    """Messages per poll: with 500 events each, 50,000 events and 20 MB at most."""
    poll_ms_max: int = 100
    """How long a poll waits for messages; a stop is noticed within this."""
    retry_ms_min: int = 200
    """First wait when ClickHouse or the broker is away; doubles up to the greatest."""
    retry_ms_max: int = 5_000
    """Short enough that a restarted server is used again within seconds."""
    refused_messages_max: int = 20
    """Messages that ClickHouse may refuse in one batch; more means that the tables are wrong, not
    the messages, and the sink stops rather than making dead letters of everything."""
    crash_at: str = ""
    """Test only: the effect at which the process kills itself, `NAME` or `NAME:N` for the Nth."""

"""The registry of topics: name, key, value, partitions, retention. Created by Meterline only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from meterline.schemas.usage import MESSAGE_BYTES_MAX


class Topic(StrEnum):
    """Every topic of the pipeline."""

    USAGE_EVENTS = "usage.events"
    DEAD_LETTERS = "usage.dead-letter"
    SPEND_SNAPSHOTS = "spend.snapshots"
    THROTTLE_COMMANDS = "throttle.commands"
    THROTTLE_ACKS = "throttle.acks"
    ALERTS = "alerts"
    POLICIES = "control.policies"
    AUDIT_LOG = "audit.log"
    DELIVERIES = "deliveries"


KEPT_TOPICS = (
    Topic.DELIVERIES,
    Topic.POLICIES,
    Topic.THROTTLE_COMMANDS,
    Topic.ALERTS,
)
"""Topics that are the only memory of what was decided and notified: the newest record of each key
is kept in ClickHouse and published again, in this order, when the log was lost."""

DAY_MS = 86_400_000
# Dead letters carry base64 of the original, which is a third longer, plus its frame.
DEAD_LETTER_BYTES_MAX = MESSAGE_BYTES_MAX
COMPACT_ONLY: Mapping[str, str] = MappingProxyType(
    {
        "cleanup.policy": "compact",
        # A month entry that is not written again must survive the broker's default of seven days.
        "retention.ms": "-1",
        "min.cleanable.dirty.ratio": "0.1",
        "segment.ms": "3600000",
    }
)


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """How one topic is created. `partitions` 0 means as many as usage.events has."""

    topic: Topic
    key: str
    value: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)


def _delete_after(days: int, **more: str) -> Mapping[str, str]:
    named = {name.replace("_", "."): value for name, value in more.items()}
    return MappingProxyType(
        {"cleanup.policy": "delete", "retention.ms": str(days * DAY_MS), **named}
    )


TOPICS: tuple[TopicSpec, ...] = (
    TopicSpec(
        Topic.USAGE_EVENTS,
        "lane id (Meterline relays) or API key",
        "UsageBatch, UsageEvent or CloudEvent",
        0,
        # Append time is the one clock that no relay can set wrongly: the future check uses it.
        _delete_after(7, message_timestamp_type="LogAppendTime", max_message_bytes="1100000"),
    ),
    TopicSpec(
        Topic.DEAD_LETTERS,
        "topic-partition-offset-index of the source",
        "DeadLetter",
        1,
        _delete_after(30, max_message_bytes="1100000"),
    ),
    TopicSpec(
        Topic.SPEND_SNAPSHOTS,
        "scope, window kind, window start, shard",
        "Totals",
        0,
        MappingProxyType(
            # A stopped worker's late write must not push out the newer value before the next
            # owner has written it again (FAUST.md, trap T4).
            {**COMPACT_ONLY, "min.compaction.lag.ms": "3600000"}
        ),
    ),
    TopicSpec(Topic.THROTTLE_COMMANDS, "scope", "ThrottleCommand", 1, COMPACT_ONLY),
    TopicSpec(
        Topic.THROTTLE_ACKS,
        "relay, scope",
        "ThrottleAck",
        1,
        MappingProxyType({"cleanup.policy": "compact,delete", "retention.ms": str(7 * DAY_MS)}),
    ),
    TopicSpec(Topic.ALERTS, "dedup key", "Alert", 1, _delete_after(90)),
    TopicSpec(Topic.POLICIES, "object id", "PolicyObject", 1, COMPACT_ONLY),
    TopicSpec(Topic.AUDIT_LOG, "object id", "AuditEntry", 1, _delete_after(90)),
    # Not compacted: every attempt is a line of the delivery log, not only the last.
    TopicSpec(Topic.DELIVERIES, "message id, channel", "Delivery", 1, _delete_after(90)),
)


def topic_spec(topic: Topic) -> TopicSpec:
    """The registry's row of one topic."""
    return next(spec for spec in TOPICS if spec.topic is topic)

"""The registry of consumer groups: whose committed offsets the brokers keep, and of which topics.

    meterline-streams   usage.events                     Faust's app id is its group
    meterline-sink      every topic that is stored in ClickHouse
    meterline-notify    alerts

The alerts worker has no group: it reads its topics from the beginning whenever it starts and
commits nothing. Workers, lag, reconciliation, rebuild and the stop of a local pipeline all name a
group by this registry.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from meterline.schemas.topics import Topic


class Group(StrEnum):
    """Every consumer group of the pipeline, as the brokers spell it."""

    STREAMS = "meterline-streams"
    SINK = "meterline-sink"
    NOTIFY = "meterline-notify"


@dataclass(frozen=True, slots=True)
class GroupSpec:
    """One consumer group, shared by all processes of its worker."""

    group: Group
    worker: str
    """The worker's name, as operators see it in lag and status."""
    topics: tuple[Topic, ...]
    """What its members subscribe to."""


GROUPS: tuple[GroupSpec, ...] = (
    GroupSpec(Group.STREAMS, "streams", (Topic.USAGE_EVENTS,)),
    GroupSpec(
        Group.SINK,
        "sink",
        (
            Topic.USAGE_EVENTS,
            Topic.SPEND_SNAPSHOTS,
            Topic.ALERTS,
            Topic.THROTTLE_COMMANDS,
            Topic.THROTTLE_ACKS,
            Topic.DEAD_LETTERS,
            Topic.AUDIT_LOG,
            Topic.DELIVERIES,
            Topic.POLICIES,
        ),
    ),
    GroupSpec(Group.NOTIFY, "notify", (Topic.ALERTS,)),
)


def group_spec(group: Group) -> GroupSpec:
    """The registry's row of one group."""
    return next(spec for spec in GROUPS if spec.group is group)


def readers_of(topic: Topic, groups: Iterable[GroupSpec] = GROUPS) -> tuple[GroupSpec, ...]:
    """Those of the groups that subscribe to a topic, in their order."""
    return tuple(spec for spec in groups if topic in spec.topics)

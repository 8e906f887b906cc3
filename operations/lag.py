"""How far the workers are behind the usage events that the log holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import NamedTuple

from meterline.backends.kafka.admin import Admin
from meterline.backends.kafka.config import KafkaConfig
from meterline.schemas.groups import GROUPS, GroupSpec, readers_of
from meterline.schemas.topics import Topic


class WorkerLag(NamedTuple):
    """Messages of usage.events that a worker's group has not committed."""

    worker: str
    started: bool
    """Whether the group has ever committed; until then all that the topic holds is behind."""
    behind: Mapping[int, int]
    """Messages by partition, those with none included."""

    @property
    def messages(self) -> int:
        """In all partitions."""
        return sum(self.behind.values())


def read_lag(config: KafkaConfig, groups: Iterable[GroupSpec] = GROUPS) -> list[WorkerLag]:
    """The lag of every worker whose group reads usage.events.

    Raises:
        KafkaClientError: the brokers do not answer, or refuse.
    """
    found = []
    with closing(Admin(config)) as admin:
        for spec in readers_of(Topic.USAGE_EVENTS, groups):
            behind = admin.group_lag(spec.group, Topic.USAGE_EVENTS)
            started = behind is not None
            if behind is None:
                behind = admin.held(Topic.USAGE_EVENTS)
            found.append(WorkerLag(spec.worker, started, behind))
    return found

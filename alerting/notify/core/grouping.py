"""Grouping: alerts of one group wait for each other and leave in one message. Pure.

    alert  alert            alert                     alert
      |------|-----------------|------------------------|----------> time
      |<- group_wait ->|       |<- rest of ------------>|<- group_wait ->|
                    message    |   group_interval    message          message
The first alert of a group waits group_wait for company; what comes within group_interval of the
group's last message waits for the interval's end. A critical alert does neither.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from meterline.schemas.alert import Alert, Severity

# Groups whose last notification is remembered; the oldest are forgotten, which costs a
# message too early.
GROUPS_REMEMBERED_MAX = 50_000
# One message has no more alerts than this; the rest follows in the next.
ALERTS_PER_MESSAGE_MAX = 100


class GroupName(NamedTuple):
    """One group on one channel."""

    channel: str
    key: str


@dataclass(slots=True)
class _Group:
    due_ms: int
    route: str
    alerts: dict[str, Alert] = field(default_factory=dict)


class Due(NamedTuple):
    """A group whose message leaves now."""

    name: GroupName
    route: str
    alerts: tuple[Alert, ...]


class Groups:
    """Alerts that wait for company."""

    def __init__(self) -> None:
        """Start with none."""
        self._groups: dict[GroupName, _Group] = {}
        self._due: list[tuple[int, int, GroupName]] = []
        self._notified_ms: dict[GroupName, int] = {}
        self._held: set[tuple[str, str]] = set()
        self._order = count()

    def __len__(self) -> int:
        """Alerts that wait."""
        return len(self._held)

    def holds(self, alert_id: str, channel: str) -> bool:
        """Whether an alert waits for its group on a channel."""
        return (alert_id, channel) in self._held

    def add(
        self,
        name: GroupName,
        alert: Alert,
        *,
        route: str,
        wait_ms: int,
        interval_ms: int,
        now_ms: int,
    ) -> None:
        """Take an alert in; one that waits already is not taken twice."""
        due_ms = now_ms
        if alert.severity is not Severity.CRITICAL:
            notified_ms = self._notified_ms.get(name, -interval_ms)
            due_ms = max(now_ms + wait_ms, notified_ms + interval_ms)
        group = self._groups.setdefault(name, _Group(due_ms, route))
        if not group.alerts or due_ms < group.due_ms:
            group.due_ms = due_ms
            heapq.heappush(self._due, (due_ms, next(self._order), name))
        group.alerts.setdefault(alert.id, alert)
        self._held.add((alert.id, name.channel))

    def take_due(self, now_ms: int) -> Iterator[Due]:
        """The groups whose time has come; they count as notified now."""
        while self._due and self._due[0][0] <= now_ms:
            due_ms, _, name = heapq.heappop(self._due)
            group = self._groups.get(name)
            if group is None or group.due_ms != due_ms:
                continue
            del self._groups[name]
            self.notified(name, now_ms)
            alerts = tuple(group.alerts.values())
            self._held.difference_update((alert.id, name.channel) for alert in alerts)
            for start in range(0, len(alerts), ALERTS_PER_MESSAGE_MAX):
                yield Due(name, group.route, alerts[start : start + ALERTS_PER_MESSAGE_MAX])

    def next_ms(self) -> int | None:
        """When `take_due` may have something next; None: nothing waits."""
        return self._due[0][0] if self._due else None

    def notified(self, name: GroupName, at_ms: int) -> None:
        """A group's message left, now or before a restart."""
        self._notified_ms.pop(name, None)
        self._notified_ms[name] = at_ms
        if len(self._notified_ms) > GROUPS_REMEMBERED_MAX:
            del self._notified_ms[next(iter(self._notified_ms))]

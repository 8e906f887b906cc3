"""The outbox: messages that are due, waiting or under way, per channel. Pure.

A queue is one alert (dedup key) on one channel: its messages leave in order, so that no receiver
hears "resolved" before "firing". Queues wait in a heap for their first message's time, then in
their channel for a free place: a slow channel fills its own places only.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from dataclasses import dataclass, replace
from itertools import count

from schemas.alert import Alert

# Enough to keep a receiver busy that answers in 100 ms, few enough not to be its load test.
IN_FLIGHT_PER_CHANNEL_MAX = 4


@dataclass(frozen=True, slots=True)
class Job:
    """One message to one channel."""

    message_id: str
    channel: str
    alert: Alert
    attempt: int = 1
    """The number of the next attempt."""
    due_ms: int = 0

    @property
    def key(self) -> tuple[str, str]:
        """The delivery: message and channel."""
        return (self.message_id, self.channel)


_Queue = tuple[str, str]
"""Channel and dedup key."""


class Outbox:
    """Undelivered messages; bounded by whoever adds to it."""

    def __init__(self) -> None:
        """Start empty."""
        self._queues: dict[_Queue, deque[Job]] = {}
        self._keys: set[tuple[str, str]] = set()
        self._waiting: list[tuple[int, int, _Queue]] = []
        self._ready: dict[str, deque[_Queue]] = {}
        self._in_flight: Counter[str] = Counter()
        self._held_until_ms: dict[str, int] = {}
        self._order = count()

    def __len__(self) -> int:
        """Messages not yet settled."""
        return len(self._keys)

    def __contains__(self, key: tuple[str, str]) -> bool:
        """Whether a delivery is in here."""
        return key in self._keys

    @property
    def in_flight(self) -> int:
        """Messages under way."""
        return self._in_flight.total()

    def add(self, job: Job) -> bool:
        """Take a message in; False if it is in here already."""
        if job.key in self._keys:
            return False
        self._keys.add(job.key)
        name = (job.channel, job.alert.dedup_key)
        queue = self._queues.setdefault(name, deque())
        queue.append(job)
        if len(queue) == 1:
            self._wait(name, job.due_ms)
        return True

    def take_due(self, now_ms: int) -> list[Job]:
        """The messages to send now; each must be given back to `settle` or `retry`."""
        while self._waiting and self._waiting[0][0] <= now_ms:
            _, _, name = heapq.heappop(self._waiting)
            self._ready.setdefault(name[0], deque()).append(name)
        taken = []
        for channel, ready in self._ready.items():
            if self._held_until_ms.get(channel, 0) > now_ms:
                continue
            while ready and self._in_flight[channel] < IN_FLIGHT_PER_CHANNEL_MAX:
                self._in_flight[channel] += 1
                taken.append(self._queues[ready.popleft()][0])
        return taken

    def settle(self, job: Job) -> None:
        """A message is done, one way or the other; the next of its queue may leave."""
        name = (job.channel, job.alert.dedup_key)
        queue = self._queues[name]
        queue.popleft()
        self._keys.discard(job.key)
        self._in_flight[job.channel] -= 1
        if queue:
            self._wait(name, queue[0].due_ms)
        else:
            del self._queues[name]

    def retry(self, job: Job, at_ms: int) -> None:
        """A message waits for its next attempt."""
        name = (job.channel, job.alert.dedup_key)
        self._queues[name][0] = replace(job, attempt=job.attempt + 1, due_ms=at_ms)
        self._in_flight[job.channel] -= 1
        self._wait(name, at_ms)

    def hold(self, channel: str, until_ms: int) -> None:
        """A receiver asked for a pause: nothing leaves for it until then."""
        self._held_until_ms[channel] = max(until_ms, self._held_until_ms.get(channel, 0))

    def _wait(self, name: _Queue, due_ms: int) -> None:
        heapq.heappush(self._waiting, (due_ms, next(self._order), name))

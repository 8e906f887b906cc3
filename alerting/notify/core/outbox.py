"""The outbox: messages that are due, waiting or under way, per channel. Pure.

A queue is one incident (or group) on one channel: its messages leave in order, so that no receiver
gets "resolved" before "firing". A new message wakes an older one of its queue that waits for a
retry: it would otherwise stand in its way for hours. Queues wait in a heap for their first
message's time, then in their channel for a free place and for the channel's rate limit: a slow channel
fills its own places only.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from dataclasses import dataclass, replace
from itertools import count

from meterline.alerting.notify.core.rate_limit import RateLimit, RateLimiter
from meterline.schemas.alert import Alert

# Enough to keep a receiver busy that answers in 100 ms, few enough not to be its load test.
IN_FLIGHT_PER_CHANNEL_MAX = 4


@dataclass(frozen=True, slots=True)
class Job:
    """One message to one channel."""

    message_id: str
    channel: str
    alerts: tuple[Alert, ...]
    """What it is about; at least one."""
    queue: str
    """Messages of one queue leave in order: the incident's key, or the group's."""
    attempt: int = 1
    """The number of the next attempt."""
    due_ms: int = 0
    route: str = ""
    """Id of the route that chose the channel."""
    replayed_at_ms: int = 0
    """When an operator asked for it again; 0 for the first time."""

    @property
    def alert(self) -> Alert:
        """The first alert."""
        return self.alerts[0]

    @property
    def key(self) -> tuple[str, str]:
        """The delivery: message and channel."""
        return (self.message_id, self.channel)


_Queue = tuple[str, str]
"""Channel and the job's queue."""


class Outbox:
    """Undelivered messages; the caller bounds their number."""

    def __init__(self) -> None:
        """Start empty."""
        self._queues: dict[_Queue, deque[Job]] = {}
        self._keys: set[tuple[str, str]] = set()
        self._waiting: list[tuple[int, int, _Queue]] = []
        self._asleep: dict[_Queue, int] = {}
        """Until when a queue in the heap waits; heap entries with another time are void."""
        self._ready: dict[str, deque[_Queue]] = {}
        self._in_flight: Counter[str] = Counter()
        self._held_until_ms: dict[str, int] = {}
        self._places: dict[str, int] = {}
        self._limiters: dict[str, RateLimiter] = {}
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
        name = (job.channel, job.queue)
        queue = self._queues.setdefault(name, deque())
        queue.append(job)
        if len(queue) == 1 or self._is_asleep(name, job.due_ms):
            queue[0] = replace(queue[0], due_ms=job.due_ms)
            self._wait(name, job.due_ms)
        return True

    def take_due(self, now_ms: int) -> list[Job]:
        """The messages to send now; each must be given back to `settle` or `retry`."""
        while self._waiting and self._waiting[0][0] <= now_ms:
            due_ms, _, name = heapq.heappop(self._waiting)
            queue = self._queues.get(name)
            if queue and self._asleep.get(name) == due_ms:
                del self._asleep[name]
                self._ready.setdefault(name[0], deque()).append(name)
        taken = []
        for channel, ready in self._ready.items():
            while ready and self._is_free(channel, now_ms):
                self._in_flight[channel] += 1
                self._limiter(channel).record(now_ms)
                taken.append(self._queues[ready.popleft()][0])
        return taken

    def next_ms(self, now_ms: int) -> int | None:
        """When `take_due` may have something next, as far as time decides; None: nothing waits."""
        times = [self._waiting[0][0]] if self._waiting else []
        for channel, ready in self._ready.items():
            if ready and self._in_flight[channel] < self._places_of(channel):
                held_ms = self._held_until_ms.get(channel, 0)
                times.append(max(held_ms, self._limiter(channel).free_at_ms(now_ms)))
        return min(times, default=None)

    def settle(self, job: Job) -> None:
        """A message is done, one way or the other; the next of its queue may leave."""
        name = (job.channel, job.queue)
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
        name = (job.channel, job.queue)
        self._queues[name][0] = replace(job, attempt=job.attempt + 1, due_ms=at_ms)
        self._in_flight[job.channel] -= 1
        self._wait(name, at_ms)

    def hold(self, channel: str, until_ms: int) -> None:
        """A receiver asked for a pause: nothing leaves for it until then."""
        self._held_until_ms[channel] = max(until_ms, self._held_until_ms.get(channel, 0))

    def limit_places(self, channel: str, places: int) -> None:
        """Bound the messages under way to a channel; IN_FLIGHT_PER_CHANNEL_MAX at first."""
        self._places[channel] = places

    def limit_rate(self, channel: str, limit: RateLimit) -> None:
        """Send no faster to a channel; under the same limit, what was sent already counts."""
        limiter = self._limiters.get(channel)
        if limiter is None or limiter.limit != limit:
            self._limiters[channel] = RateLimiter(limit)

    def _is_free(self, channel: str, now_ms: int) -> bool:
        return (
            self._held_until_ms.get(channel, 0) <= now_ms
            and self._in_flight[channel] < self._places_of(channel)
            and self._limiter(channel).free_at_ms(now_ms) <= now_ms
        )

    def _places_of(self, channel: str) -> int:
        return self._places.get(channel, IN_FLIGHT_PER_CHANNEL_MAX)

    def _limiter(self, channel: str) -> RateLimiter:
        return self._limiters.setdefault(channel, RateLimiter())

    def _is_asleep(self, name: _Queue, due_ms: int) -> bool:
        """Whether the queue's first message waits for a later time than this."""
        return self._asleep.get(name, due_ms) > due_ms

    def _wait(self, name: _Queue, due_ms: int) -> None:
        self._asleep[name] = due_ms
        heapq.heappush(self._waiting, (due_ms, next(self._order), name))

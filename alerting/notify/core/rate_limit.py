"""Rate limit of a channel, as a sliding window. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple


class RateLimit(NamedTuple):
    """At most `messages` in any span of `span_ms`; 0 messages: no limit."""

    messages: int = 0
    span_ms: int = 0


UNLIMITED = RateLimit()


@dataclass(slots=True)
class RateLimiter:
    """Sliding window of what was sent."""

    limit: RateLimit = UNLIMITED
    _sent_ms: deque[int] = field(default_factory=deque)

    def free_at_ms(self, now_ms: int) -> int:
        """When the next message may leave; not later than now if at once."""
        if self.limit.messages == 0 or len(self._sent_ms) < self.limit.messages:
            return now_ms
        return self._sent_ms[0] + self.limit.span_ms

    def record(self, now_ms: int) -> None:
        """A message leaves."""
        if self.limit.messages:
            self._sent_ms.append(now_ms)
            while len(self._sent_ms) > self.limit.messages:
                self._sent_ms.popleft()

"""Health of a channel: a dead endpoint is paused, and its fallback notified. Pure.

    failures  1  2  3  4  5 -> paused 30 s -> one probe -> 6 -> 60 s -> ... 10 min
                            success at any time -> healthy, all places open
A pause costs no attempts: messages keep their schedule and wait.
"""

from __future__ import annotations

from typing import NamedTuple

from meterline.alerting.notify.core.retry_schedule import Attempt
from meterline.schemas.delivery import DeliveryOutcome

# Fewer would pause a receiver for one restart of its own.
FAILURES_UNTIL_PAUSE = 5
FIRST_PAUSE_MS = 30_000
# A receiver that is back is noticed this soon at the latest.
PAUSE_MS_MAX = 600_000
# The first retry comes 5 s after the first attempt: a person should not wait for the third,
# which comes minutes later.
FALLBACK_AFTER_ATTEMPTS = 2
_TOO_MANY_REQUESTS = 429
_HOPELESS = frozenset(
    {
        DeliveryOutcome.REFUSED,
        DeliveryOutcome.GONE,
        DeliveryOutcome.FORBIDDEN,
        DeliveryOutcome.EXHAUSTED,
    }
)


class Health(NamedTuple):
    """How a channel has been answering."""

    failures: int = 0
    """Failed attempts since the last response."""
    paused_until_ms: int = 0

    @property
    def is_paused(self) -> bool:
        """Whether the channel is probed and not used."""
        return self.failures >= FAILURES_UNTIL_PAUSE


def observed(health: Health, attempt: Attempt, now_ms: int) -> Health:
    """Take one attempt into account.

    A refusal, and 429, come from a receiver that lives.
    """
    is_failure = (
        attempt.outcome is DeliveryOutcome.RETRY and attempt.http_status != _TOO_MANY_REQUESTS
    )
    if not is_failure:
        return Health()
    if now_ms < health.paused_until_ms:
        # It was under way when the pause began: nothing new. Counted, the four of a receiver that
        # hangs for seconds would make the first pause minutes long.
        return health
    failures = health.failures + 1
    if failures < FAILURES_UNTIL_PAUSE:
        return Health(failures)
    doublings = min(failures - FAILURES_UNTIL_PAUSE, 16)
    return Health(failures, now_ms + min(FIRST_PAUSE_MS << doublings, PAUSE_MS_MAX))


def wants_fallback(outcome: DeliveryOutcome, attempt: int) -> bool:
    """Whether a fallback channel is notified, after attempt `attempt` (from 1) came to `outcome`."""
    if outcome is DeliveryOutcome.RETRY:
        return attempt >= FALLBACK_AFTER_ATTEMPTS
    return outcome in _HOPELESS

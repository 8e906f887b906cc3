"""Health of a channel: what counts as a failure, and how long the pauses are."""

from __future__ import annotations

from meterline.alerting.notify.core.channel_health import (
    FAILURES_UNTIL_PAUSE,
    FIRST_PAUSE_MS,
    Health,
    observed,
)
from meterline.alerting.notify.core.retry_schedule import Attempt
from meterline.schemas.delivery import DeliveryOutcome

NOW = 1_793_000_000_000
FAILED = Attempt(DeliveryOutcome.RETRY, 0)


def failing(health: Health, times: int, now_ms: int) -> Health:
    """`times` failures at one moment."""
    for _ in range(times):
        health = observed(health, FAILED, now_ms)
    return health


def test_requests_that_were_under_way_do_not_lengthen_the_pause() -> None:
    """Those that fail within the pause they did not see begin leave it as long as it is."""
    paused = failing(Health(), FAILURES_UNTIL_PAUSE, NOW)
    assert paused.paused_until_ms == NOW + FIRST_PAUSE_MS
    assert failing(paused, 3, NOW + 1) == paused


def test_a_probe_that_fails_doubles_the_pause() -> None:
    """The one attempt after a pause counts."""
    paused = failing(Health(), FAILURES_UNTIL_PAUSE, NOW)
    probed_ms = paused.paused_until_ms
    again = observed(paused, FAILED, probed_ms)
    assert again.paused_until_ms == probed_ms + 2 * FIRST_PAUSE_MS

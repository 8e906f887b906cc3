"""When to try again, and when to stop: by the receiver's response and a fixed schedule. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from meterline.schemas.delivery import DeliveryOutcome

# Retry-After is a wish; a week of it would outlast every alert.
RETRY_AFTER_SECONDS_MAX = 86_400
_RETRIED = frozenset({408, 425, 429})
_GONE = 410
_FIRST_SUCCESS, _FIRST_REDIRECT, _FIRST_SERVER_ERROR = 200, 300, 500
# Up to a tenth more, so that what failed together does not come back together.
_JITTER_DIVISOR = 10


@dataclass(frozen=True, slots=True)
class Attempt:
    """Outcome of one attempt. `http_status` 0: no response."""

    outcome: DeliveryOutcome
    http_status: int = 0
    error: str = ""
    retry_after_seconds: int | None = None


class Next(NamedTuple):
    """What an attempt amounts to, once the schedule is asked; `at_ms` 0: no further attempt."""

    outcome: DeliveryOutcome
    at_ms: int


def outcome_of(http_status: int) -> DeliveryOutcome:
    """Classify a response.

    Only 2xx is success. A redirect is a refusal: following it would send a signed message to an
    address that was never checked.
    """
    if _FIRST_SUCCESS <= http_status < _FIRST_REDIRECT:
        return DeliveryOutcome.DELIVERED
    if http_status == _GONE:
        return DeliveryOutcome.GONE
    if http_status in _RETRIED or http_status >= _FIRST_SERVER_ERROR:
        return DeliveryOutcome.RETRY
    return DeliveryOutcome.REFUSED


def after(
    attempt: Attempt, number: int, message_id: str, delays: Sequence[int], now_ms: int
) -> Next:
    """Say what follows attempt `number` (from 1).

    Args:
        attempt: what came of it.
        number: how many attempts there were, this one included.
        message_id: whose; spreads retries.
        delays: seconds before each attempt, the first included.
        now_ms: UTC ms.
    """
    if attempt.outcome is not DeliveryOutcome.RETRY:
        return Next(attempt.outcome, 0)
    if number >= len(delays):
        return Next(DeliveryOutcome.EXHAUSTED, 0)
    delay_ms = delays[number] * 1000
    jitter_ms = zlib.crc32(f"{message_id} {number}".encode()) % (delay_ms // _JITTER_DIVISOR + 1)
    asked_ms = min(attempt.retry_after_seconds or 0, RETRY_AFTER_SECONDS_MAX) * 1000
    return Next(DeliveryOutcome.RETRY, now_ms + max(delay_ms + jitter_ms, asked_ms))

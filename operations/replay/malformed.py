"""Broken messages for chaos: each is refused by the decoder with its own reason."""

from __future__ import annotations

import random  # noqa: TID251 - seeded: a replay must be repeatable
from collections.abc import Callable
from typing import Any

import msgspec

from meterline.schemas.reasons import RejectReason
from meterline.schemas.usage import FUTURE_TOLERANCE_MS

_Body = dict[str, Any]


def _event(event_id: str, time_ms: int, organisation: str) -> _Body:
    return {
        "id": event_id,
        "time_ms": time_ms,
        "organisation": organisation,
        "key": "k-broken",
        "model": "gpt-4.1",
        "input_tokens": 10,
        "output_tokens": 10,
    }


def _with(**fields: Any) -> Callable[[_Body], bytes | None]:
    return lambda body: msgspec.json.encode({**body, **fields})


def _without(name: str) -> Callable[[_Body], bytes | None]:
    return lambda body: msgspec.json.encode({k: v for k, v in body.items() if k != name})


CORRUPTIONS: dict[RejectReason, Callable[[_Body], bytes | None]] = {
    RejectReason.MALFORMED_JSON: lambda body: msgspec.json.encode(body)[:-2],
    RejectReason.WRONG_TYPE: _with(input_tokens="many"),
    RejectReason.MISSING_FIELD: _without("organisation"),
    RejectReason.NEGATIVE_QUANTITY: _with(output_tokens=-5),
    RejectReason.PART_EXCEEDS_WHOLE: _with(cache_read_tokens=11),
    RejectReason.INVALID_IDENTIFIER: _with(key=""),
    RejectReason.FUTURE_TIME: lambda body: msgspec.json.encode(
        # Twice the tolerance, so that the way to the broker does not make it good.
        {**body, "time_ms": body["time_ms"] + 2 * FUTURE_TOLERANCE_MS + 60_000}
    ),
    RejectReason.ANCIENT_TIME: lambda body: msgspec.json.encode(
        {**body, "time_ms": body["time_ms"] // 1000}
    ),
    RejectReason.EMPTY_BATCH: lambda body: msgspec.json.encode(
        {"lane": body["id"], "seq": 1, "events": []}
    ),
    RejectReason.TOMBSTONE: lambda _body: None,
}


def broken_message(
    draw: random.Random, event_id: str, time_ms: int, organisation: str
) -> tuple[RejectReason, bytes | None]:
    """One record value that must become a dead letter, and the reason it must get."""
    reason = draw.choice(tuple(CORRUPTIONS))
    return reason, CORRUPTIONS[reason](_event(event_id, time_ms, organisation))

"""Bytes of usage.events to checked events: the one decoder that streams and sinks share.

Because both paths call this function on the same bytes and the same Kafka timestamp, both accept
and reject exactly the same events; nothing here depends on a clock.

A message is one of these, distinguished by content:
    {"lane": ..., "seq": ..., "events": [...]}                          UsageBatch
    {"specversion": "1.0", "type": "relay.usage.recorded.v1", "data": {...}}   CloudEvent, structured
    {"id": ..., "time_ms": ..., ...}                                    one UsageEvent
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from meterline.schemas.periods import parse_rfc3339
from meterline.schemas.reasons import RejectReason
from meterline.schemas.scopes import ScopeError, scopes_of
from meterline.schemas.usage import (
    EVENTS_PER_BATCH_MAX,
    FUTURE_TOLERANCE_MS,
    MESSAGE_BYTES_MAX,
    TAG_KEY_LENGTH_MAX,
    TAG_VALUE_LENGTH_MAX,
    TAGS_MAX,
    TIME_MS_MIN,
    UsageBatch,
    UsageEvent,
)

CLOUD_EVENT_TYPE = "relay.usage.recorded.v1"


class BatchDecoder(Protocol):
    """A msgspec decoder of UsageBatch or of a subclass."""

    def decode(self, _value: bytes, /) -> UsageBatch:
        """The batch; msgspec's errors if it is none."""


@dataclass(frozen=True, slots=True)
class Reject:
    """One event (or whole message, `index` -1) that is not counted."""

    index: int
    reason: RejectReason
    detail: str
    original: bytes
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class UsageMessage:
    """A decoded message: accepted events with their positions, and the rest with reasons.

    `lane` is empty and `seq` 0 for a single event. `positions[i]` is the index of `events[i]` in
    the message as sent.
    """

    lane: str
    seq: int
    events: tuple[UsageEvent, ...]
    positions: tuple[int, ...] | range
    rejects: tuple[Reject, ...]


class _RawBatch(msgspec.Struct, frozen=True):
    lane: str
    seq: int
    events: list[msgspec.Raw]


_batch_decoder = msgspec.json.Decoder(UsageBatch)
_raw_batch_decoder = msgspec.json.Decoder(_RawBatch)
_event_decoder = msgspec.json.Decoder(UsageEvent)
_object_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text_decoder = msgspec.json.Decoder(str)
encode = msgspec.json.encode
LANE_LENGTH_MAX = 200
SEQ_MAX = 2**53
_DETAIL_LENGTH_MAX = 300  # a reason a person reads, not a copy of the input


def decode_usage(
    value: bytes | None,
    timestamp_ms: int,
    decoder: BatchDecoder = _batch_decoder,
) -> UsageMessage:
    """Decode and check one record value of usage.events; never raises on bad input.

    Args:
        value: the record's value; None for a tombstone.
        timestamp_ms: the record's Kafka timestamp: the "now" of the future-time check, so that
            every reader of the log decides alike.
        decoder: tried first, for a reader with a subclass of event of its own. What it refuses is
            decoded as for every other reader, so it changes no verdict.
    """
    if value is None:
        return _whole(RejectReason.TOMBSTONE, "record without a value", b"")
    if len(value) > MESSAGE_BYTES_MAX:
        detail = f"{len(value)} bytes, at most {MESSAGE_BYTES_MAX}"
        return _whole(RejectReason.OVERSIZE_MESSAGE, detail, value[:_DETAIL_LENGTH_MAX])
    try:
        batch = decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        if decoder is not _batch_decoder:
            return decode_usage(value, timestamp_ms)
        return _decode_slowly(value, timestamp_ms)
    return _check_batch(batch, value, timestamp_ms)


def _check_batch(batch: UsageBatch, value: bytes, timestamp_ms: int) -> UsageMessage:
    events = batch.events
    if not events:
        return _whole(
            RejectReason.EMPTY_BATCH, "batch without events", value, batch.lane, batch.seq
        )
    if len(events) > EVENTS_PER_BATCH_MAX:
        detail = f"{len(events)} events, at most {EVENTS_PER_BATCH_MAX}"
        return _whole(RejectReason.OVERSIZE_BATCH, detail, value, batch.lane, batch.seq)
    if _faultless(events, timestamp_ms + FUTURE_TOLERANCE_MS):
        return UsageMessage(batch.lane, batch.seq, events, range(len(events)), ())
    # Only the slow path has each event's own bytes, unknown fields included.
    return _decode_raw_batch(value, timestamp_ms)


def _faultless(events: tuple[UsageEvent, ...], latest_ms: int) -> bool:
    """Whether `fault` finds nothing in any of them; identities, which repeat, are checked once."""
    for event in events:
        if _measure_fault(event, latest_ms) is not None or (
            event.tags and _tags_fault(event) is not None
        ):
            return False
    identities = {
        (event.organisation, event.department, event.project, event.user, event.key)
        for event in events
    }
    return all(_identity_fault(*identity) is None for identity in identities)


def _message(
    lane: str, seq: int, checked: list[tuple[int, UsageEvent]], rejects: list[Reject]
) -> UsageMessage:
    events = tuple(event for _, event in checked)
    positions = tuple(index for index, _ in checked)
    return UsageMessage(lane, seq, events, positions, tuple(rejects))


def fault(event: UsageEvent, latest_ms: int) -> tuple[RejectReason, str] | None:
    """The fault of a well-typed event, or None.

    Args:
        event: a decoded event.
        latest_ms: the latest event time that is accepted.
    """
    return (
        _measure_fault(event, latest_ms)
        or _identity_fault(
            event.organisation, event.department, event.project, event.user, event.key
        )
        or _tags_fault(event)
    )


def _measure_fault(event: UsageEvent, latest_ms: int) -> tuple[RejectReason, str] | None:
    if event.time_ms > latest_ms:
        ahead = (event.time_ms - latest_ms + FUTURE_TOLERANCE_MS) // 1000
        return RejectReason.FUTURE_TIME, f"time_ms is {ahead} s ahead of the message"
    if event.time_ms < TIME_MS_MIN:
        return RejectReason.ANCIENT_TIME, "time_ms is before 2020; are these seconds?"
    if event.corrects_id:
        return None
    cached = event.cache_read_tokens + event.cache_write_tokens + event.cache_write_1h_tokens
    if (
        event.input_tokens < cached
        or event.input_tokens < event.input_audio_tokens
        or event.output_tokens < event.reasoning_tokens
        or event.output_tokens < event.output_audio_tokens
        or event.cache_read_tokens < 0
        or event.cache_write_tokens < 0
        or event.cache_write_1h_tokens < 0
        or event.reasoning_tokens < 0
        or event.input_audio_tokens < 0
        or event.output_audio_tokens < 0
        or event.input_tokens < 0
        or event.output_tokens < 0
    ):
        return _quantity_fault(event)
    return None


def _quantity_fault(event: UsageEvent) -> tuple[RejectReason, str]:
    quantities = {
        name: getattr(event, name)
        for name in UsageEvent.__struct_fields__
        if name.endswith("_tokens")
    }
    negative = [name for name, count in quantities.items() if count < 0]
    if negative:
        return RejectReason.NEGATIVE_QUANTITY, f"{', '.join(negative)} below zero, no corrects_id"
    if event.output_tokens < max(event.reasoning_tokens, event.output_audio_tokens):
        return RejectReason.PART_EXCEEDS_WHOLE, "reasoning or audio tokens exceed output_tokens"
    return RejectReason.PART_EXCEEDS_WHOLE, "cached or audio tokens exceed input_tokens"


def _identity_fault(
    organisation: str, department: str, project: str, user: str, key: str
) -> tuple[RejectReason, str] | None:
    try:
        scopes_of(organisation, department, project, user, key)
    except ScopeError as error:
        return RejectReason.INVALID_IDENTIFIER, str(error)[:_DETAIL_LENGTH_MAX]
    return None


def _tags_fault(event: UsageEvent) -> tuple[RejectReason, str] | None:
    if len(event.tags) > TAGS_MAX or any(
        len(name) > TAG_KEY_LENGTH_MAX or len(text) > TAG_VALUE_LENGTH_MAX
        for name, text in event.tags.items()
    ):
        return RejectReason.INVALID_TAGS, (
            f"at most {TAGS_MAX} tags, names of {TAG_KEY_LENGTH_MAX}, values of "
            f"{TAG_VALUE_LENGTH_MAX} characters"
        )
    return None


def _decode_slowly(value: bytes, timestamp_ms: int) -> UsageMessage:
    """Anything that is not a well-typed batch: find out what it is, save what is good in it."""
    try:
        members = _object_decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return _whole(RejectReason.MALFORMED_JSON, _short(error), value)
    if "lane" in members or "events" in members:
        return _decode_raw_batch(value, timestamp_ms)
    if "specversion" in members:
        return _decode_cloud_event(members, value, timestamp_ms)
    return _one(value, value, timestamp_ms)


def _decode_raw_batch(value: bytes, timestamp_ms: int) -> UsageMessage:
    try:
        raw = _raw_batch_decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return _whole(_reason_of(error), _short(error), value)
    if not 1 <= len(raw.lane) <= LANE_LENGTH_MAX or not 1 <= raw.seq <= SEQ_MAX:
        return _whole(RejectReason.WRONG_TYPE, "lane of 1 to 200 characters, seq from 1", value)
    if len(raw.events) > EVENTS_PER_BATCH_MAX:
        detail = f"{len(raw.events)} events, at most {EVENTS_PER_BATCH_MAX}"
        return _whole(RejectReason.OVERSIZE_BATCH, detail, value, raw.lane, raw.seq)
    checked: list[tuple[int, UsageEvent]] = []
    rejects: list[Reject] = []
    for index, body in enumerate(raw.events):
        outcome = _decode_event(bytes(body), timestamp_ms, index)
        if isinstance(outcome, Reject):
            rejects.append(outcome)
        else:
            checked.append((index, outcome))
    return _message(raw.lane, raw.seq, checked, rejects)


def _decode_event(body: bytes, timestamp_ms: int, index: int) -> UsageEvent | Reject:
    try:
        event = _event_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Reject(index, _reason_of(error), _short(error), body, _id_of(body))
    found = fault(event, timestamp_ms + FUTURE_TOLERANCE_MS)
    if found is not None:
        return Reject(index, found[0], found[1], body, event.id)
    return event


def _decode_cloud_event(
    members: dict[str, msgspec.Raw], value: bytes, timestamp_ms: int
) -> UsageMessage:
    """CloudEvents 1.0, structured JSON mode: `id` and `time` of the envelope fill the event's."""
    try:
        attributes = {
            name: _text_decoder.decode(members[name])
            for name in ("specversion", "type", "id", "time")
            if name in members
        }
        data: dict[str, Any] = msgspec.json.decode(members.get("data", b"{}"), type=dict)
        if "time" in attributes:
            data.setdefault("time_ms", parse_rfc3339(attributes["time"]))
    except (msgspec.MsgspecError, ValueError) as error:
        return _whole(RejectReason.WRONG_TYPE, _short(error), value)
    if attributes["specversion"] != "1.0" or attributes.get("type") != CLOUD_EVENT_TYPE:
        detail = f"expected specversion 1.0 and type {CLOUD_EVENT_TYPE}"
        return _whole(RejectReason.UNKNOWN_ENVELOPE, detail, value)
    if "id" in attributes:
        data.setdefault("id", attributes["id"])
    return _one(encode(data), value, timestamp_ms)


def _one(body: bytes, original: bytes, timestamp_ms: int) -> UsageMessage:
    outcome = _decode_event(body, timestamp_ms, 0)
    if isinstance(outcome, Reject):
        reject = Reject(0, outcome.reason, outcome.detail, original, outcome.event_id)
        return UsageMessage("", 0, (), range(0), (reject,))
    return UsageMessage("", 0, (outcome,), range(1), ())


def _whole(
    reason: RejectReason, detail: str, original: bytes, lane: str = "", seq: int = 0
) -> UsageMessage:
    return UsageMessage(lane, seq, (), range(0), (Reject(-1, reason, detail, original),))


def _reason_of(error: Exception) -> RejectReason:
    """Msgspec distinguishes a missing field from a wrong type only in its message."""
    if not isinstance(error, msgspec.ValidationError):
        return RejectReason.MALFORMED_JSON
    if "missing required field" in str(error):
        return RejectReason.MISSING_FIELD
    return RejectReason.WRONG_TYPE


def _id_of(body: bytes) -> str:
    try:
        identifier = msgspec.json.decode(body, type=dict).get("id", "")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
    return identifier if isinstance(identifier, str) else ""


def _short(error: Exception) -> str:
    return str(error)[:_DETAIL_LENGTH_MAX]

"""Bad input gets its reason code; the rest of the batch is accepted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meterline.schemas.codec import decode_usage, encode
from meterline.schemas.reasons import RejectReason
from meterline.schemas.usage import (
    EVENTS_PER_BATCH_MAX,
    FUTURE_TOLERANCE_MS,
    MESSAGE_BYTES_MAX,
    UsageBatch,
    UsageEvent,
)

NOW = 1_763_700_000_000


def event(**fields: Any) -> dict[str, Any]:
    """A well-formed event with some fields changed; None removes one."""
    base: dict[str, Any] = {
        "id": "r1:1",
        "time_ms": NOW,
        "organisation": "acme",
        "key": "k1",
        "model": "gpt-4.1",
        "input_tokens": 100,
        "output_tokens": 10,
    }
    return {name: value for name, value in (base | fields).items() if value is not None}


def batch(*events: Any) -> bytes:
    """A message of the lane r/b/0."""
    return json.dumps({"lane": "r/b/0", "seq": 1, "events": list(events)}).encode()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"input_tokens": -1}, RejectReason.NEGATIVE_QUANTITY),
        ({"cache_write_1h_tokens": -1}, RejectReason.NEGATIVE_QUANTITY),
        ({"cache_read_tokens": 101}, RejectReason.PART_EXCEEDS_WHOLE),
        (
            {"cache_read_tokens": 60, "cache_write_tokens": 41},
            RejectReason.PART_EXCEEDS_WHOLE,
        ),
        ({"reasoning_tokens": 11}, RejectReason.PART_EXCEEDS_WHOLE),
        ({"input_tokens": "100"}, RejectReason.WRONG_TYPE),
        ({"input_tokens": 1.5}, RejectReason.WRONG_TYPE),
        ({"input_tokens": 2**60}, RejectReason.WRONG_TYPE),
        ({"id": ""}, RejectReason.WRONG_TYPE),
        ({"id": None}, RejectReason.MISSING_FIELD),
        ({"key": None}, RejectReason.MISSING_FIELD),
        ({"key": ""}, RejectReason.INVALID_IDENTIFIER),
        ({"organisation": "a/b"}, RejectReason.INVALID_IDENTIFIER),
        ({"department": "a\u0000b"}, RejectReason.INVALID_IDENTIFIER),
        ({"tags": {str(n): "x" for n in range(21)}}, RejectReason.INVALID_TAGS),
        ({"tags": {"k": "v" * 257}}, RejectReason.INVALID_TAGS),
        ({"time_ms": NOW + FUTURE_TOLERANCE_MS + 1}, RejectReason.FUTURE_TIME),
        ({"time_ms": NOW // 1000}, RejectReason.ANCIENT_TIME),
    ],
)
def test_a_bad_event_is_rejected_alone(fields: dict[str, Any], reason: RejectReason) -> None:
    """One bad event in a batch is rejected with its reason, bytes and id; its neighbours count."""
    bad = event(**fields)
    message = decode_usage(batch(event(id="a"), bad, event(id="z")), NOW)
    assert [kept.id for kept in message.events] == ["a", "z"]
    assert tuple(message.positions) == (0, 2)
    (reject,) = message.rejects
    assert (reject.index, reject.reason) == (1, reason)
    assert json.loads(reject.original) == bad
    assert reject.detail


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, RejectReason.TOMBSTONE),
        (b"", RejectReason.MALFORMED_JSON),
        (b"{", RejectReason.MALFORMED_JSON),
        (b"\xff\xfe", RejectReason.MALFORMED_JSON),
        (b"[1]", RejectReason.MALFORMED_JSON),
        (b"[" * 100_000, RejectReason.MALFORMED_JSON),
        (b'{"lane":"l","seq":1,"events":[]}', RejectReason.EMPTY_BATCH),
        (b'{"lane":"l","seq":0,"events":[]}', RejectReason.WRONG_TYPE),
        (b'{"lane":"l","seq":"1","events":[]}', RejectReason.WRONG_TYPE),
        (b'{"lane":"l","events":[]}', RejectReason.MISSING_FIELD),
        (b'{"specversion":"0.3","type":"x","data":{}}', RejectReason.UNKNOWN_ENVELOPE),
        (b'{"specversion":"1.0","type":"other","data":{}}', RejectReason.UNKNOWN_ENVELOPE),
        (b"x" * (MESSAGE_BYTES_MAX + 1), RejectReason.OVERSIZE_MESSAGE),
        (batch(*[event()] * (EVENTS_PER_BATCH_MAX + 1)), RejectReason.OVERSIZE_BATCH),
    ],
)
def test_a_bad_message_is_one_reject(value: bytes | None, reason: RejectReason) -> None:
    """A message that is no batch at all is one reject with index -1, and never an exception."""
    message = decode_usage(value, NOW)
    assert message.events == ()
    assert [(reject.index, reject.reason) for reject in message.rejects] == [(-1, reason)]


def test_unknown_fields_are_no_fault() -> None:
    """A newer relay may send fields that this version does not know."""
    message = decode_usage(batch(event(new_field={"a": 1})), NOW)
    assert len(message.events) == 1
    assert not message.rejects


def test_a_rejected_event_keeps_its_unknown_fields() -> None:
    """The dead letter holds the event's own bytes, not what was decoded of them."""
    message = decode_usage(batch(event(input_tokens=-1, new_field=7)), NOW)
    assert json.loads(message.rejects[0].original)["new_field"] == 7


def test_a_correction_may_be_negative() -> None:
    """Signed differences are allowed where they say what they correct."""
    message = decode_usage(batch(event(input_tokens=-5, corrects_id="r0:1")), NOW)
    assert message.events[0].input_tokens == -5


def test_a_single_event_needs_no_lane() -> None:
    """A producer in another language may send plain events."""
    message = decode_usage(json.dumps(event()).encode(), NOW)
    assert (message.lane, message.seq, len(message.events)) == ("", 0, 1)


def test_a_cloud_event_lends_its_id_and_time() -> None:
    """CloudEvents structured JSON: id and time of the envelope fill the event's."""
    envelope = {
        "specversion": "1.0",
        "type": "relay.usage.recorded.v1",
        "source": "//acme/relay/1",
        "id": "r9:1",
        "time": "2025-11-21T04:40:00Z",
        "data": event(id=None, time_ms=None),
    }
    message = decode_usage(json.dumps(envelope).encode(), NOW)
    assert message.events[0].id == "r9:1"
    assert message.events[0].time_ms == NOW


def test_a_batch_reads_back_as_it_was_written() -> None:
    """What the emitter encodes, the decoder returns."""
    sent = UsageBatch(
        lane="r/b/1",
        seq=7,
        events=(UsageEvent(id="x", time_ms=NOW, organisation="acme", key="k", model="m"),),
    )
    message = decode_usage(encode(sent), NOW)
    assert (message.lane, message.seq, message.events) == ("r/b/1", 7, sent.events)

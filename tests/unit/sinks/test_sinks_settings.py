"""Bounds, waits and failpoints."""

import pytest

from meterline.backends.failpoints import Failpoints, SinkFailpoint, UnknownFailpointError
from meterline.backends.kafka.config import Record
from meterline.schemas.dead_letter import decode_dead_letter, encode_dead_letter
from meterline.schemas.reasons import RejectReason
from meterline.schemas.topics import DEAD_LETTER_BYTES_MAX, TOPICS, Topic
from meterline.schemas.usage import MESSAGE_BYTES_MAX
from meterline.sinks.core.batch import Poison
from meterline.sinks.core.handlers import topic_handlers
from meterline.sinks.core.usage_rows import RatedEvent
from meterline.sinks.settings import SinkSettings
from meterline.sinks.writer import Backoff, dead_letter_of


def unused(_: object) -> RatedEvent:
    raise AssertionError


def test_every_topic_is_stored() -> None:
    """Each topic has a policy and a handler."""
    stored = {spec.topic for spec in TOPICS}
    assert SinkSettings().policies.keys() == stored
    assert topic_handlers(0, unused).keys() == stored


def test_events_are_written_within_a_second() -> None:
    """No policy lets a row wait for longer than a second, usage events half of it."""
    policies = SinkSettings().policies
    assert max(policy.age_ms_max for policy in policies.values()) <= 1_000
    assert policies[Topic.USAGE_EVENTS].age_ms_max <= 500


def test_backoff_doubles_to_its_bound() -> None:
    """Waits double up to the greatest and stay there."""
    backoff = Backoff(SinkSettings(retry_ms_min=200, retry_ms_max=1_000))
    assert [backoff.next_seconds() for _ in range(5)] == [0.2, 0.4, 0.8, 1.0, 1.0]


def test_no_crash_unless_asked() -> None:
    """Without a name no effect kills the process."""
    failpoints = Failpoints("", SinkFailpoint)
    for name in SinkFailpoint:
        failpoints.hit(name)
    Failpoints("after_insert:2", SinkFailpoint).hit(SinkFailpoint.AFTER_INSERT)


@pytest.mark.parametrize(("original", "expected"), [(None, b"value"), (b"one", b"one"), (b"", b"")])
def test_dead_letter_of_poison(original: bytes | None, expected: bytes) -> None:
    """A dead letter holds the record's bytes or the one event's, and names the source position."""
    record = Record("usage.events", 2, 7, 1_000, None, b"value")
    letter = dead_letter_of(Poison(record, 3, "too much", "e-1", original))
    assert letter.key() == "usage.events-2-7-3"
    assert letter.original() == expected
    assert letter.reason is RejectReason.NOT_STORABLE
    assert decode_dead_letter(encode_dead_letter(letter)) == letter


def test_dead_letter_of_the_largest_message_fits() -> None:
    """A dead letter about a message of any size is below the broker's limit."""
    record = Record("usage.events", 2, 7, 1_000, None, b"x" * MESSAGE_BYTES_MAX)
    assert len(encode_dead_letter(dead_letter_of(Poison(record, -1, "d")))) < DEAD_LETTER_BYTES_MAX


def test_an_unknown_failpoint_is_refused() -> None:
    """A misspelt name would never be reached, and its test would prove nothing."""
    for crash_at in ("before_lunch", "after_insert:soon"):
        with pytest.raises(UnknownFailpointError, match=crash_at):
            Failpoints(crash_at, SinkFailpoint)

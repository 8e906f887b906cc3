"""Snapshots, commands, alerts, dead letters and policy objects read back as written."""

from __future__ import annotations

import pytest

from meterline.schemas.alert import AlertError, decode_alert
from meterline.schemas.dead_letter import (
    ORIGINAL_BYTES_MAX,
    DeadLetter,
    decode_dead_letter,
    encode_dead_letter,
    encode_original,
)
from meterline.schemas.policy import (
    Budget,
    NotifyPolicy,
    PolicyObject,
    PolicyRecordError,
    RuleSet,
    ScopePolicy,
    decode_policy,
    encode_policy,
    object_id,
)
from meterline.schemas.reasons import RejectReason
from meterline.schemas.spend import (
    SnapshotError,
    SnapshotKey,
    Totals,
    decode_snapshot,
    encode_key,
    encode_totals,
    newer,
)
from meterline.schemas.throttle import (
    BreakerState,
    ThrottleCommand,
    ThrottleError,
    decode_command,
    encode_command,
)
from meterline.schemas.topics import TOPICS, Topic, topic_spec

KEY = SnapshotKey("department:acme/research", "month", 1_761_955_200_000, "3")
TOTALS = Totals(0, 17, 1_764_547_200_000, 5_504_000, 300, 100, 0, 0, 0, 2, 0, 1_763_700_000_000)


def test_a_snapshot_reads_back() -> None:
    """Key and totals survive the wire to the nano-dollar."""
    assert decode_snapshot(encode_key(KEY), encode_totals(TOTALS)) == (KEY, TOTALS)


def test_an_expired_window_has_no_totals() -> None:
    """A record without a value says that the window has been expired."""
    snapshot = decode_snapshot(encode_key(KEY), None)
    assert snapshot is not None
    assert snapshot.totals is None


def test_bookkeeping_is_skipped() -> None:
    """Records of the streams themselves are no snapshots and no errors."""
    key = encode_key(SnapshotKey("~state", "month", 0, "3"))
    assert decode_snapshot(key, b'{"anything":1}') is None


@pytest.mark.parametrize(
    ("key", "value"),
    [(None, b"[]"), (b"[]", b"[]"), (b'["a","year",1,"0"]', encode_totals(TOTALS))],
)
def test_a_stranger_on_the_topic_is_an_error(key: bytes | None, value: bytes) -> None:
    """A record that Meterline did not write is distinguished from its own."""
    with pytest.raises(SnapshotError):
        decode_snapshot(key, value)


def test_a_later_epoch_beats_a_greater_offset() -> None:
    """After a lost log, old offsets lose however large they are."""
    assert newer(Totals(1, 0, *[0] * 10), Totals(0, 10**9, *[0] * 10))
    assert newer(Totals(0, 2, *[0] * 10), Totals(0, 1, *[0] * 10))


def test_a_command_reads_back_and_a_stranger_does_not() -> None:
    """Commands survive the wire; anything else is refused with one error type."""
    command = ThrottleCommand(
        scope="department:acme/research",
        epoch=2,
        seq=9,
        state=BreakerState.OPEN,
        admit_percent=0,
        reason="budget exhausted",
        reason_code="budget_exhausted",
        issued_at_ms=1,
        expires_at_ms=2,
    )
    assert decode_command(encode_command(command)) == command
    assert command.version == (2, 9)
    with pytest.raises(ThrottleError):
        decode_command(b'{"scope": 1}')


def test_a_stranger_is_no_alert() -> None:
    """Anything else on the alerts topic is refused with one error type."""
    with pytest.raises(AlertError):
        decode_alert(b"{}")


def test_a_dead_letter_reads_back_and_is_bounded() -> None:
    """A letter keeps the original bytes up to its bound, under the key of its source position."""
    letter = DeadLetter(
        topic="usage.events",
        partition=1,
        offset=2,
        index=3,
        reason=RejectReason.CONFLICT,
        detail="other body",
        original_base64=encode_original(b"\x00\xff" * ORIGINAL_BYTES_MAX),
    )
    again = decode_dead_letter(encode_dead_letter(letter))
    assert again == letter
    assert letter.key() == "usage.events-1-2-3"
    assert len(again.original()) == ORIGINAL_BYTES_MAX


@pytest.mark.parametrize(
    ("item", "key"),
    [
        (ScopePolicy(scope="key:acme/k", budget=Budget(month_nano_usd=5)), "key:acme/k"),
        (RuleSet(), "rules"),
        (NotifyPolicy(), "notify"),
    ],
)
def test_policy_objects_read_back(item: PolicyObject, key: str) -> None:
    """Each kind of object is recognised by its content and has one record key."""
    assert decode_policy(encode_policy(item)) == item
    assert object_id(item) == key


def test_a_stranger_is_no_policy() -> None:
    """Anything else on the policy topic is refused with one error type."""
    with pytest.raises(PolicyRecordError):
        decode_policy(b'{"kind":"other"}')


def test_every_topic_is_declared_once() -> None:
    """The registry names every topic exactly once, and no compacted feed loses idle entries."""
    assert [spec.topic for spec in TOPICS] == list(dict.fromkeys(spec.topic for spec in TOPICS))
    assert {spec.topic for spec in TOPICS} == set(Topic)
    assert topic_spec(Topic.SPEND_SNAPSHOTS).config["retention.ms"] == "-1"

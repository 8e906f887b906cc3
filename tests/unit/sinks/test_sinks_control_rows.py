"""Records of the other topics to rows, and dead letters to retractions."""

import msgspec
import pytest

from meterline.schemas.dead_letter import (
    ORIGINAL_BYTES_MAX,
    DeadLetter,
    encode_dead_letter,
    encode_original,
)
from meterline.schemas.reasons import RETRACTED, RejectReason
from meterline.schemas.spend import SnapshotKey, Totals, encode_key, encode_totals
from meterline.schemas.tables import DEAD_LETTERS, SPEND_WINDOWS, USAGE_EVENTS
from meterline.schemas.topics import Topic
from meterline.schemas.usage import UsageEvent
from meterline.sinks.core.control_rows import (
    ROW_TOPICS,
    DeadLetterRows,
    RecordError,
    TopicPosition,
    dead_letter,
    dead_letters_block,
    record_row,
    spend_block,
    spend_window,
)
from meterline.sinks.core.usage_rows import retraction_block
from meterline.sinks.core.versions import Position, retraction_version

NOW_MS = 1_793_000_000_000
PLACE = TopicPosition(2, 40)
EVENT = UsageEvent(id="e-1", time_ms=NOW_MS, organisation="acme", key="k-1", model="m")


def letter(original: bytes, **fields: object) -> DeadLetterRows:
    named: dict[str, object] = {
        "topic": "usage.events",
        "partition": 3,
        "offset": 17,
        "index": 4,
        "reason": RejectReason.CONFLICT,
        "detail": "other body",
        "timestamp_ms": NOW_MS,
    }
    made = DeadLetter(
        original_base64=encode_original(original),
        **{**named, **fields},  # type: ignore[arg-type] # of the right types, see above
    )
    found = dead_letter(encode_dead_letter(made), PLACE)
    assert found is not None
    return found


@pytest.mark.parametrize("reason", sorted(RejectReason))
def test_only_verdicts_of_the_streams_take_rows_back(reason: RejectReason) -> None:
    """A letter whose reason the decoder finds as well retracts nothing: there is no row."""
    found = letter(msgspec.json.encode(EVENT), reason=reason)
    assert bool(found.retracted) is (reason in RETRACTED)
    assert not found.unreadable


def test_letters_of_other_topics_take_nothing_back() -> None:
    """A conflict is about usage.events only."""
    assert letter(msgspec.json.encode(EVENT), topic="alerts").retracted == ()


def test_retraction_names_exactly_the_refused_row() -> None:
    """The retraction has the refused row's sorting key and its position, one version above it."""
    [found] = letter(msgspec.json.encode(EVENT)).retracted
    assert found.event_id == "e-1"
    assert (found.event_time, found.organisation, found.key) == (NOW_MS, "acme", "k-1")
    assert found.department == "unassigned"
    assert found.source_partition == 3
    assert found.version == retraction_version(Position(2, 17, 4))
    block = retraction_block([found])
    columns = dict(zip((column.name for column in block.columns), block.data, strict=True))
    assert columns["is_deleted"] == [1]
    assert set(columns) <= {column.name for column in USAGE_EVENTS.columns}


def test_whole_message_takes_every_event_back() -> None:
    """A letter about a whole batch retracts each of its events at its own position."""
    batch = msgspec.json.encode({"lane": "l", "seq": 1, "events": [EVENT, {"id": "bad"}, EVENT]})
    found = letter(batch, index=-1, reason=RejectReason.LANE_RESTARTED).retracted
    assert [each.version for each in found] == [
        retraction_version(Position(2, 17, index)) for index in (0, 2)
    ]


def test_cut_original_still_names_its_row() -> None:
    """An event longer than a letter holds is recognised by the fields a relay writes first."""
    body = msgspec.json.encode(msgspec.structs.replace(EVENT, department="research"))
    long = body[:-1] + b',"padding":"' + b"x" * ORIGINAL_BYTES_MAX + b'"}'
    [found] = letter(long).retracted
    assert (found.event_id, found.department, found.key) == ("e-1", "research", "k-1")


@pytest.mark.parametrize("original", [b"", b"{", b"[1]", b'{"id":"e-1","time_ms":1'])
def test_unreadable_original_is_reported(original: bytes) -> None:
    """A dead letter that should retract a row but does not identify it is stored, and reported."""
    found = letter(original)
    assert (found.retracted, found.unreadable) == ((), True)


def test_letter_row_fits_its_table() -> None:
    """A row has a value for each column, the original as the bytes it was."""
    block = dead_letters_block([letter(b"\xff\x00", reason=RejectReason.MALFORMED_JSON)])
    row = dict(zip((column.name for column in DEAD_LETTERS.columns), block.data, strict=True))
    assert row["original"] == (b"\xff\x00",)
    assert row["source_epoch"] == (2,)
    assert (row["source_partition"], row["source_offset"], row["source_index"]) == (
        (3,),
        (17,),
        (4,),
    )


@pytest.mark.parametrize("value", [b"", b"{}", b'{"topic":1}', b"\xff"])
def test_no_dead_letter(value: bytes) -> None:
    """What is no dead letter raises, so that it becomes one itself."""
    with pytest.raises(RecordError):
        dead_letter(value, PLACE)


def test_tombstones_make_no_rows() -> None:
    """A record without a value ends a state; it deletes no history and is no error."""
    assert dead_letter(None, PLACE) is None
    assert spend_window(encode_key(SnapshotKey("key:a/b", "hour", 0, "0")), None) is None
    assert [record_row(topic, None, PLACE) for topic in ROW_TOPICS] == [None] * len(ROW_TOPICS)


@pytest.mark.parametrize("topic", list(ROW_TOPICS))
@pytest.mark.parametrize("value", [b"", b"{}", b"null", b"\xff\xfe"])
def test_garbage_is_a_record_error_on_one_line(topic: Topic, value: bytes) -> None:
    """Garbage in any topic raises with a reason that names the topic, on one line."""
    with pytest.raises(RecordError, match=topic.value) as caught:
        record_row(topic, value, PLACE)
    assert "\n" not in str(caught.value)


def test_spend_row() -> None:
    """A window's row takes its scope apart and ranks by epoch and offset."""
    totals = Totals(1, 99, NOW_MS + 1, 10, 1, 2, 3, 4, 5, 6, 7, NOW_MS)
    key = SnapshotKey("user:acme/ana/b:c", "day", NOW_MS, "~opening")
    window = spend_window(encode_key(key), encode_totals(totals))
    assert window is not None
    block = spend_block([window])
    row = dict(
        zip(
            (column.name for column in SPEND_WINDOWS.columns),
            (v[0] for v in block.data),
            strict=True,
        )
    )
    assert (row["scope_type"], row["organisation"], row["scope"]) == ("user", "acme", key.scope)
    assert (row["cost_usd"], row["events"], row["unpriced_events"]) == (10, 6, 7)
    assert row["version"] == 2**48 + 100


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, b"[]"),
        (b"[]", b"[]"),
        (encode_key(SnapshotKey("nobody", "hour", 0, "0")), b"null"),
        (encode_key(SnapshotKey("key:a/b", "fortnight", 0, "0")), b""),
        (encode_key(SnapshotKey("key:a/b", "hour", 0, "0")), b"[1]"),
    ],
)
def test_no_snapshot(key: bytes | None, value: bytes) -> None:
    """What is no snapshot raises, so that it becomes a dead letter."""
    with pytest.raises(RecordError):
        spend_window(key, value)

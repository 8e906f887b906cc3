"""Pure: messages of usage.events to the columns of usage_events.

The same decoder as the streams': what it rejects is not stored here, the streams write the dead
letter. Each event is rated here once more, so that two paths from one log can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import msgspec
import orjson

from schemas.codec import decode_usage
from schemas.scopes import UNASSIGNED
from schemas.tables import NANO_USD_LIMIT, USAGE_EVENTS, Column
from schemas.usage import UsageBatch, UsageEvent
from sinks.versions import first_version


class RatedEvent(Protocol):
    """What rating says of an event."""

    @property
    def cost_nano_usd(self) -> int:
        """The cost; 0 where unpriced."""

    @property
    def priced(self) -> bool:
        """Whether there was a price."""

    @property
    def model(self) -> str:
        """The canonical model."""

    @property
    def price_version(self) -> str:
        """The catalogue's version."""


Rate: TypeAlias = Callable[[UsageEvent], RatedEvent]


class _StrictEvent(UsageEvent, forbid_unknown_fields=True, frozen=True, kw_only=True, gc=False):
    pass


class _StrictBatch(UsageBatch, frozen=True, kw_only=True, gc=False):
    events: tuple[_StrictEvent, ...]


# Telling whether a batch has any unknown field costs one more decoding (0.4 us an event); looking
# for them in every event would cost 2 us.
_strict_decoder = msgspec.json.Decoder(_StrictBatch)
_FIELDS: Final = UsageEvent.__struct_fields__
_KNOWN: Final = frozenset(_FIELDS)
_ENVELOPE: Final = frozenset(
    {"specversion", "id", "time", "type", "data", "datacontenttype", "dataschema"}
)

# Columns whose integers are narrower than a sender may write.
_BOUNDS: Final = {
    "http_status": (-(2**31), 2**31 - 1),
    "latency_ms": (-(2**31), 2**31 - 1),
    "ttft_ms": (-(2**31), 2**31 - 1),
    "reported_cost_nano_usd": (1 - NANO_USD_LIMIT, NANO_USD_LIMIT - 1),
}
# Field of UsageEvent -> column, where the names differ.
_COLUMN_OF: Final = {
    "id": "event_id",
    "time_ms": "event_time",
    "model": "model_sent",
    "reported_cost_nano_usd": "reported_cost_usd",
}
_COLUMNS: Final = {column.name: column for column in USAGE_EVENTS.columns}


@dataclass(frozen=True, slots=True)
class Unstorable:
    """An accepted event whose cost is beyond the column: a dead letter, not a row."""

    index: int
    event_id: str
    original: bytes


@dataclass(frozen=True, slots=True)
class UsageRows:
    """The rows of one message."""

    partition: int
    timestamp_ms: int
    first_version: int
    events: tuple[UsageEvent, ...]
    positions: Sequence[int]
    rated: list[RatedEvent]
    extra: list[str] | None
    """JSON of unknown fields per event; None where no event has any."""
    unstorable: tuple[Unstorable, ...] = ()


class Block(NamedTuple):
    """Columns ready to insert."""

    columns: tuple[Column, ...]
    data: list[Sequence[Any]]
    rows: int


def usage_rows(
    value: bytes | None, timestamp_ms: int, partition: int, offset: int, epoch: int, rate: Rate
) -> UsageRows | None:
    """Decode and rate one message; None when no event of it was accepted.

    Raises:
        PositionError: the offset or the epoch is beyond the limits of a version.
    """
    message = decode_usage(value, timestamp_ms)
    if not message.events or value is None:
        return None
    events, positions = message.events, message.positions
    rated = [rate(event) for event in events]
    extra = None
    if message.rejects or not _plain(value):
        extra = _extra_texts(value, events, positions)
    rows = UsageRows(
        partition, timestamp_ms, first_version(epoch, offset), events, positions, rated, extra
    )
    if any(not -NANO_USD_LIMIT < each.cost_nano_usd < NANO_USD_LIMIT for each in rated):
        return _without_unstorable(rows)
    return rows


def _plain(value: bytes) -> bool:
    """Whether this is a batch in which every field is known."""
    try:
        _strict_decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _extra_texts(
    value: bytes, events: tuple[UsageEvent, ...], positions: Sequence[int]
) -> list[str] | None:
    """What the decoder did not take, as JSON per event; `value` is known to be a JSON object."""
    try:
        document = orjson.loads(value)
    except orjson.JSONDecodeError:
        # Accepted by the decoder but not by a stricter parser: nothing more can be kept.
        return None
    if "events" in document:
        bodies = [document["events"][position] for position in positions]
        texts = [_unknown(body, {}) for body in bodies]
    elif "specversion" in document:
        attributes = {name: text for name, text in document.items() if name not in _ENVELOPE}
        more = {"cloud_event": attributes} if attributes else {}
        texts = [_unknown(document.get("data") or {}, more)]
    else:
        texts = [_unknown(document, {})]
    assert len(texts) == len(events)
    return texts if any(texts) else None


def _unknown(body: dict[str, Any], more: dict[str, Any]) -> str:
    unknown = {name: value for name, value in body.items() if name not in _KNOWN} | more
    if not unknown:
        return ""
    return orjson.dumps(unknown, option=orjson.OPT_SORT_KEYS).decode()


def _without_unstorable(rows: UsageRows) -> UsageRows:
    kept = [
        number
        for number, rated in enumerate(rows.rated)
        if -NANO_USD_LIMIT < rated.cost_nano_usd < NANO_USD_LIMIT
    ]
    gone = [number for number in range(len(rows.events)) if number not in set(kept)]
    return UsageRows(
        rows.partition,
        rows.timestamp_ms,
        rows.first_version,
        tuple(rows.events[number] for number in kept),
        [rows.positions[number] for number in kept],
        [rows.rated[number] for number in kept],
        [rows.extra[number] for number in kept] if rows.extra else None,
        tuple(
            Unstorable(
                rows.positions[number],
                rows.events[number].id,
                msgspec.json.encode(rows.events[number]),
            )
            for number in gone
        ),
    )


def usage_block(messages: Sequence[UsageRows]) -> Block:
    """The columns of many messages.

    A column in which every row has its default is left out: ClickHouse fills it in, and most of
    an event's optional fields are never used by one relay.
    """
    events = [event for message in messages for event in message.events]
    fields = dict(
        zip(_FIELDS, zip(*map(msgspec.structs.astuple, events), strict=True), strict=True)
    )
    columns: dict[str, Sequence[Any]] = {
        _COLUMN_OF.get(name, name): values for name, values in fields.items()
    }
    if not all(columns["department"]):
        columns["department"] = [name or UNASSIGNED for name in columns["department"]]
    rated = [each for message in messages for each in message.rated]
    columns["cost_usd"] = [each.cost_nano_usd for each in rated]
    columns["priced"] = [each.priced for each in rated]
    columns["model"] = [each.model for each in rated]
    columns["price_version"] = [each.price_version for each in rated]
    columns["extra"] = _extra_column(messages)
    _clamp(columns, fields)
    columns["received_delay_ms"] = [
        message.timestamp_ms - event.time_ms for message in messages for event in message.events
    ]
    columns["source_partition"] = [
        message.partition for message in messages for _ in message.events
    ]
    columns["version"] = [
        message.first_version - 2 * position
        for message in messages
        for position in message.positions
    ]
    return _block(columns, len(events))


def _extra_column(messages: Sequence[UsageRows]) -> list[str]:
    texts: list[str] = []
    for message in messages:
        texts += message.extra or [""] * len(message.events)
    return texts


def _clamp(columns: dict[str, Sequence[Any]], fields: dict[str, tuple[Any, ...]]) -> None:
    """Values beyond their column: clamped, and as sent in `extra`; the event still counts."""
    for field, (low, high) in _BOUNDS.items():
        values = [value for value in fields[field] if value is not None]
        if not values or (min(values) >= low and max(values) <= high):
            continue
        column = _COLUMN_OF.get(field, field)
        extra = list(columns["extra"])
        clamped = list(fields[field])
        for row, value in enumerate(clamped):
            if value is not None and not low <= value <= high:
                clamped[row] = min(max(value, low), high)
                noted = orjson.loads(extra[row] or b"{}")
                noted[field] = str(value)
                extra[row] = orjson.dumps(noted, option=orjson.OPT_SORT_KEYS).decode()
        columns[column], columns["extra"] = clamped, extra


def _block(columns: dict[str, Sequence[Any]], rows: int) -> Block:
    kept: list[Column] = []
    data: list[Sequence[Any]] = []
    for column in USAGE_EVENTS.columns:
        values = columns.get(column.name)
        if values is not None and (any(values) or column.name == "event_id"):
            kept.append(column)
            data.append(values)
    return Block(tuple(kept), data, rows)


class Identity(NamedTuple):
    """The columns of usage_events that a retraction has to repeat."""

    event_id: str
    event_time: int
    organisation: str
    department: str
    key: str
    source_partition: int
    version: int


RETRACTION_COLUMNS: Final = (
    *(_COLUMNS[name] for name in Identity._fields),
    _COLUMNS["is_deleted"],
)


def retraction_block(identities: Sequence[Identity]) -> Block:
    """The rows that take others back."""
    data: list[Sequence[Any]] = [list(values) for values in zip(*identities, strict=True)]
    return Block(RETRACTION_COLUMNS, [*data, [1] * len(identities)], len(identities))


def identity(event: UsageEvent, partition: int, version: int) -> Identity:
    """The sorting key of an event's row, as `usage_block` writes it."""
    return Identity(
        event.id,
        event.time_ms,
        event.organisation,
        event.department or UNASSIGNED,
        event.key,
        partition,
        version,
    )

"""Pure: messages of usage.events to the columns of usage_events.

The same decoder as the streams': what it rejects is not stored here, the streams write the dead
letter. Each event is rated here once more, so that two paths from one log can be compared.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import msgspec
import orjson

from meterline.schemas.codec import decode_usage
from meterline.schemas.scopes import UNASSIGNED
from meterline.schemas.tables import (
    COUNT,
    LABEL,
    MONEY,
    NANO_USD_LIMIT,
    TAGS,
    TEXT,
    TIME,
    USAGE_EVENTS,
    StoredColumn,
)
from meterline.schemas.usage import UsageBatch, UsageEvent
from meterline.sinks.core.personal_data import PersonalData, take_personal_data
from meterline.sinks.core.versions import first_version


class RatedEvent(Protocol):
    """The price of an event."""

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


# Detects an unknown field while it decodes a batch; a search of every event would cost 2 us.
_strict_decoder = msgspec.json.Decoder(_StrictBatch)
_FIELDS: Final = UsageEvent.__struct_fields__
_KNOWN: Final = frozenset(_FIELDS)
_ENVELOPE: Final = frozenset(
    {"specversion", "id", "time", "type", "data", "datacontenttype", "dataschema"}
)

# Columns whose integers are narrower than a sender may write.
BOUNDS: Final = {
    "http_status": (-(2**31), 2**31 - 1),
    "latency_ms": (-(2**31), 2**31 - 1),
    "ttft_ms": (-(2**31), 2**31 - 1),
    "reported_cost_usd": (1 - NANO_USD_LIMIT, NANO_USD_LIMIT - 1),
}
# Field of UsageEvent -> column, where the names differ.
COLUMN_OF: Final = {
    "id": "event_id",
    "time_ms": "event_time",
    "model": "model_sent",
    "reported_cost_nano_usd": "reported_cost_usd",
}
_COLUMNS: Final = {column.name: column for column in USAGE_EVENTS.columns}


def default_of(column: StoredColumn) -> Any:
    """The value that ClickHouse fills in, as the driver takes it."""
    if column.type.startswith("Nullable"):
        return None
    if column.type == TAGS:
        return {}
    return "" if column.type in {TEXT, LABEL} else 0


def _default(column_name: str) -> Any:
    column = _COLUMNS.get(column_name)
    # Personal texts have no column here.
    return "" if column is None else default_of(column)


_EVENT_COLUMNS: Final = tuple(
    (name, _default(name)) for name in (COLUMN_OF.get(each, each) for each in _FIELDS)
)
# Texts that repeat from row to row, as opposed to those of one row.
_REPEATED: Final = frozenset(
    {column.name for column in USAGE_EVENTS.columns if column.type == LABEL}
    | {"user", "key", "key_name"}
)
# Columns of numbers are kept as the bytes that are sent: an object for each would be 40 bytes.
_ARRAY_CODES: Final = {
    "Bool": "B",
    "Int32": "i",
    COUNT: "q",
    MONEY: "q",
    TIME: "q",
    "UInt16": "H",
    "UInt64": "Q",
}
_CODE_OF: Final = {
    column.name: _ARRAY_CODES[column.type]
    for column in USAGE_EVENTS.columns
    if column.type in _ARRAY_CODES
}
# More labels, keys and users than one batch has; 8 MB. Starting again costs 0.1 us a text.
REPEATED_TEXTS_MAX: Final = 65_536


class _Interned(dict[str, str]):
    """Interns texts: equal texts become one object.

    The decoder makes a new text for every field of every row. A batch of them does not
    fit into the processor's cache, and each is hashed again when the driver builds a dictionary.
    """

    def __missing__(self, text: str) -> str:
        """Keep a text that is new."""
        if len(self) >= REPEATED_TEXTS_MAX:
            self.clear()
        self[text] = text
        return text


_one_of = _Interned().__getitem__


@dataclass(frozen=True, slots=True)
class Unstorable:
    """An accepted event whose cost is beyond the column: a dead letter, not a row."""

    index: int
    event_id: str
    original: bytes


@dataclass(frozen=True, slots=True)
class UsageRows:
    """The rows of one message."""

    columns: dict[str, Sequence[Any]]
    """By name; a column in which every row has its default is left out."""
    rows: int
    unstorable: tuple[Unstorable, ...] = ()
    lane: str = ""
    """Of the batch; empty for a single event."""
    seq: int = 0
    personal_data: frozenset[PersonalData] = frozenset()
    """What the numbers in the column `person` stand for."""


class Block(NamedTuple):
    """Columns ready to insert."""

    columns: tuple[StoredColumn, ...]
    data: list[Sequence[Any]]
    rows: int


def usage_rows(
    value: bytes | None, timestamp_ms: int, partition: int, offset: int, epoch: int, rate: Rate
) -> UsageRows | None:
    """Decode, check and rate one message; None when no event of it was accepted.

    Columns are made here and not per batch, because a hundred events fit into the processor's
    cache and twenty thousand do not: 1.5 us an event instead of 4.

    Raises:
        PositionError: the offset or the epoch is beyond the limits of a version.
    """
    message = decode_usage(value, timestamp_ms, _strict_decoder)
    if not message.events or value is None:
        return None
    events = message.events
    positions: Sequence[int] = message.positions
    rated = [rate(event) for event in events]
    unstorable: tuple[Unstorable, ...] = ()
    if any(not -NANO_USD_LIMIT < each.cost_nano_usd < NANO_USD_LIMIT for each in rated):
        kept = [
            number
            for number, each in enumerate(rated)
            if -NANO_USD_LIMIT < each.cost_nano_usd < NANO_USD_LIMIT
        ]
        unstorable = tuple(
            Unstorable(positions[number], event.id, msgspec.json.encode(event))
            for number, event in enumerate(events)
            if number not in kept
        )
        events = tuple(events[number] for number in kept)
        positions = [positions[number] for number in kept]
        rated = [rated[number] for number in kept]
        if not events:
            return UsageRows({}, 0, unstorable, message.lane, message.seq)
    columns = _event_columns(events)
    personal_data = take_personal_data(columns)
    first = first_version(epoch, offset)
    computed: dict[str, Sequence[Any]] = {
        "cost_usd": [each.cost_nano_usd for each in rated],
        "priced": [each.priced for each in rated],
        "model": [each.model for each in rated],
        "price_version": [each.price_version for each in rated],
        "received_delay_ms": [timestamp_ms - time_ms for time_ms in columns["event_time"]],
        "source_partition": [partition] * len(events),
        "version": [first - 2 * position for position in positions],
    }
    if not isinstance(events[0], _StrictEvent):
        computed["extra"] = _extra_texts(value, positions)
    columns |= {name: values for name, values in computed.items() if any(values)}
    _clamp(columns)
    for name in columns.keys() & _CODE_OF.keys():
        columns[name] = array(_CODE_OF[name], columns[name])
    return UsageRows(columns, len(events), unstorable, message.lane, message.seq, personal_data)


def _event_columns(events: tuple[UsageEvent, ...]) -> dict[str, Sequence[Any]]:
    """The columns of the events' own fields, without those in which all have the default."""
    transposed = zip(*map(msgspec.structs.astuple, events), strict=True)
    columns: dict[str, Sequence[Any]] = {}
    for (name, default), values in zip(_EVENT_COLUMNS, transposed, strict=True):
        if values[0] == default and values.count(default) == len(values):
            continue
        columns[name] = list(map(_one_of, values)) if name in _REPEATED else values
    if "department" not in columns:
        columns["department"] = [UNASSIGNED] * len(events)
    elif not all(columns["department"]):
        columns["department"] = [name or UNASSIGNED for name in columns["department"]]
    return columns


def _extra_texts(value: bytes, positions: Sequence[int]) -> list[str]:
    """The fields that the decoder does not know, as JSON per event; `value` is a JSON object."""
    try:
        document = orjson.loads(value)
    except orjson.JSONDecodeError:
        # Accepted by the decoder but not by a stricter parser: nothing more can be kept.
        return [""] * len(positions)
    if "events" in document:
        return [_unknown(document["events"][position], {}) for position in positions]
    if "specversion" in document:
        attributes = {name: text for name, text in document.items() if name not in _ENVELOPE}
        more = {"cloud_event": attributes} if attributes else {}
        return [_unknown(document.get("data") or {}, more)]
    return [_unknown(document, {})]


def _unknown(body: dict[str, Any], more: dict[str, Any]) -> str:
    unknown = {name: value for name, value in body.items() if name not in _KNOWN} | more
    if not unknown:
        return ""
    return orjson.dumps(unknown, option=orjson.OPT_SORT_KEYS).decode()


def usage_block(messages: Sequence[UsageRows]) -> Block:
    """The columns of many messages, at least one row.

    A column in which every row has its default is left out: ClickHouse fills it in, and most of
    an event's optional fields are never used by one relay.
    """
    used = set[str]().union(*(message.columns for message in messages))
    kept = tuple(column for column in USAGE_EVENTS.columns if column.name in used)
    data = [_joined(column, messages) for column in kept]
    return Block(kept, data, sum(message.rows for message in messages))


def _joined(column: StoredColumn, messages: Sequence[UsageRows]) -> Sequence[Any]:
    code = _CODE_OF.get(column.name)
    default = default_of(column)
    values: Any = [] if code is None else array(code)
    nothing: Any = [default] if code is None else array(code, [default])
    for message in messages:
        values += message.columns.get(column.name) or nothing * message.rows
    return values  # type: ignore[no-any-return] # list or array


def _clamp(columns: dict[str, Sequence[Any]]) -> None:
    """Values beyond their column: clamped, and as sent in `extra`; the event still counts."""
    for name, (low, high) in BOUNDS.items():
        values = columns.get(name, ())
        # Zero and None fit every column.
        given = list(filter(None, values))
        if not given or (low <= min(given) and max(given) <= high):
            continue
        wrong = [
            row
            for row, value in enumerate(values)
            if value is not None and not low <= value <= high
        ]
        clamped = list(values)
        extra = list(columns.get("extra") or [""] * len(values))
        for row in wrong:
            clamped[row] = min(max(values[row], low), high)
            noted = orjson.loads(extra[row] or b"{}")
            noted[name] = str(values[row])
            extra[row] = orjson.dumps(noted, option=orjson.OPT_SORT_KEYS).decode()
        columns[name], columns["extra"] = clamped, extra


class RowIdentity(NamedTuple):
    """The columns of usage_events that a retraction has to repeat."""

    event_id: str
    event_time: int
    organisation: str
    department: str
    key: str
    source_partition: int
    version: int


RETRACTION_COLUMNS: Final = (
    *(_COLUMNS[name] for name in RowIdentity._fields),
    _COLUMNS["is_deleted"],
)


def retraction_block(identities: Sequence[RowIdentity]) -> Block:
    """The rows that retract others."""
    data: list[Sequence[Any]] = [list(values) for values in zip(*identities, strict=True)]
    return Block(RETRACTION_COLUMNS, [*data, [1] * len(identities)], len(identities))


def row_identity(event: UsageEvent, partition: int, version: int) -> RowIdentity:
    """The sorting key of an event's row, as `usage_block` writes it."""
    return RowIdentity(
        event.id,
        event.time_ms,
        event.organisation,
        event.department or UNASSIGNED,
        event.key,
        partition,
        version,
    )

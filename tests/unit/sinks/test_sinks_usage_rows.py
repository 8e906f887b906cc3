"""Messages of usage.events to columns."""

import json
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from meterline.schemas.tables import NANO_USD_LIMIT, USAGE_EVENTS
from meterline.schemas.usage import UsageBatch, UsageEvent
from meterline.sinks.core.usage_rows import Block, UsageRows, default_of, usage_block, usage_rows
from meterline.sinks.core.versions import Position, row_version

NOW_MS = 1_793_000_000_000


@dataclass(frozen=True)
class Price:
    cost_nano_usd: int
    priced: bool = True
    model: str = "canonical"
    price_version: str = "v1"


def price(event: UsageEvent) -> Price:
    """A nano-dollar a token."""
    return Price(event.input_tokens)


def event(**fields: Any) -> UsageEvent:
    named = {"id": "e-1", "time_ms": NOW_MS, "organisation": "acme", "key": "k-1", "model": "m"}
    return UsageEvent(**{**named, **fields})


def rows_of(value: bytes, *, offset: int = 5, epoch: int = 0) -> UsageRows | None:
    return usage_rows(value, NOW_MS + 40, 3, offset, epoch, price)


def table(block: Block) -> list[dict[str, Any]]:
    """Rows with every column, as ClickHouse would fill them in."""
    given = dict(zip((column.name for column in block.columns), block.data, strict=True))
    return [
        {
            column.name: given[column.name][row] if column.name in given else default_of(column)
            for column in USAGE_EVENTS.columns
        }
        for row in range(block.rows)
    ]


def stored(*values: bytes, **place: int) -> list[dict[str, Any]]:
    messages = [rows_of(value, **place) for value in values]
    return table(usage_block([message for message in messages if message is not None]))


def batch(*events: UsageEvent | dict[str, Any]) -> bytes:
    return msgspec.json.encode({"lane": "r/b/0", "seq": 1, "events": list(events)})


def test_every_field_has_a_column() -> None:
    """Each field of an event, set to a value of its own, is found in its column."""
    values: dict[str, Any] = {}
    for number, field in enumerate(UsageEvent.__struct_fields__, start=1):
        kind = UsageEvent.__annotations__[field]
        values[field] = f"text-{number}" if "Name" in kind or "str" in kind else number
    values |= {"time_ms": NOW_MS, "tags": {"a": "b"}, "stream": True}
    [row] = stored(batch(event(**values)))
    renamed = {
        "event_id": "id",
        "event_time": "time_ms",
        "model_sent": "model",
        "reported_cost_usd": "reported_cost_nano_usd",
    }
    rated = {"model": "canonical", "priced": True, "price_version": "v1"}
    computed = {"cost_usd", "extra", "received_delay_ms", "source_partition", "version"}
    computed |= {"person"}
    for column in row.keys() - rated.keys() - computed - {"is_deleted"}:
        assert row[column] == values[renamed.get(column, column)], column
    assert {name: row[name] for name in rated} == rated
    assert row["cost_usd"] == values["input_tokens"]


def test_personal_data_is_apart() -> None:
    """A row has a number instead of what is personal; the same caller has the same number."""
    ana = {"user_email": "ana@acme.test", "client_ip": "10.0.0.1", "user_agent": "curl"}
    message = rows_of(
        batch(event(**ana), event(id="2", **ana), event(id="3"), event(id="4", user_agent="x"))
    )
    assert message is not None
    first, second, third, fourth = message.columns["person"]
    assert first == second > 0
    assert third == 0
    assert fourth not in {0, first}
    assert not message.columns.keys() & ana.keys()
    assert {each.person: each.user_email for each in message.personal_data} == {
        first: "ana@acme.test",
        fourth: "",
    }


def test_source_place() -> None:
    """A row says where in the log it came from, by its position in the message as sent."""
    bad = {"id": "x"}
    rows = stored(batch(event(id="a"), bad, event(id="b")), offset=7, epoch=2)
    assert [row["event_id"] for row in rows] == ["a", "b"]
    assert [row["version"] for row in rows] == [
        row_version(Position(2, 7, 0)),
        row_version(Position(2, 7, 2)),
    ]
    assert {row["source_partition"] for row in rows} == {3}
    assert {row["received_delay_ms"] for row in rows} == {40}


def test_texts_that_repeat_are_kept_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of different messages share their labels, keys and users; however many there have been."""
    first, second = (rows_of(batch(event(id=name, user="ana"))) for name in ("a", "b"))
    assert first is not None
    assert second is not None
    for column in ("organisation", "key", "user", "model_sent"):
        assert first.columns[column][0] is second.columns[column][0]
    monkeypatch.setattr("meterline.sinks.core.usage_rows.REPEATED_TEXTS_MAX", 2)
    users = [f"user-{number}" for number in range(10)]
    rows = stored(batch(*(event(id=user, user=user) for user in users)))
    assert [row["user"] for row in rows] == users


def test_missing_department_is_unassigned() -> None:
    """An event without a department is stored under `unassigned`, as the streams count it."""
    rows = stored(batch(event(), event(id="e-2", department="research")))
    assert [row["department"] for row in rows] == ["unassigned", "research"]


def test_unknown_fields_are_kept() -> None:
    """Unknown fields are stored as JSON beside the event, and only there."""
    known = json.loads(msgspec.json.encode(event(id="e-2")))
    odd = {**known, "id": "e-3", "region": "eu", "nested": {"b": [1, None], "a": "ü"}}
    rows = stored(batch(known, odd))
    assert [row["extra"] for row in rows] == ["", '{"nested":{"a":"ü","b":[1,null]},"region":"eu"}']


def test_unknown_fields_beside_a_reject() -> None:
    """Positions of unknown fields are right although an event before them was rejected."""
    odd = {**json.loads(msgspec.json.encode(event())), "region": "eu"}
    rows = stored(batch({"id": "broken"}, odd))
    assert [(row["event_id"], row["extra"]) for row in rows] == [("e-1", '{"region":"eu"}')]


def test_single_event_and_cloud_event() -> None:
    """A plain event and a CloudEvent are stored as well; the envelope's own attributes are kept."""
    plain = msgspec.json.encode(event(id="plain"))
    cloud = json.dumps(
        {
            "specversion": "1.0",
            "type": "relay.usage.recorded.v1",
            "id": "cloud",
            "source": "/relay/1",
            "time": "2026-10-01T00:00:00Z",
            "data": {"organisation": "acme", "key": "k", "model": "m", "shift": 3},
        }
    ).encode()
    rows = stored(plain, cloud)
    assert [row["event_id"] for row in rows] == ["plain", "cloud"]
    assert [row["extra"] for row in rows] == [
        "",
        '{"cloud_event":{"source":"/relay/1"},"shift":3}',
    ]


@pytest.mark.parametrize("value", [None, b"", b"[]", b"{}", batch(), batch({"id": "x"})])
def test_nothing_accepted_gives_no_rows(value: bytes | None) -> None:
    """A tombstone, garbage and rejected events store nothing: the streams write the dead letter."""
    assert usage_rows(value, NOW_MS, 0, 0, 0, price) is None


def test_values_beyond_their_column_are_clamped_and_kept() -> None:
    """A nonsense latency does not lose the event: it is stored clamped, and as sent in `extra`."""
    rows = stored(
        batch(event(), event(id="e-2", latency_ms=2**40, http_status=-(2**33), input_tokens=5))
    )
    assert [row["latency_ms"] for row in rows] == [0, 2**31 - 1]
    assert rows[1]["http_status"] == -(2**31)
    assert rows[0]["extra"] == ""
    assert json.loads(rows[1]["extra"]) == {"latency_ms": str(2**40), "http_status": str(-(2**33))}
    assert rows[1]["cost_usd"] == 5


def test_cost_beyond_the_column_is_not_stored() -> None:
    """An event of a billion dollars is set apart for a dead letter, its neighbours are stored."""

    def absurd(each: UsageEvent) -> Price:
        return Price(NANO_USD_LIMIT if each.id == "b" else NANO_USD_LIMIT - 1)

    value = batch(event(id="a"), event(id="b"), event(id="c"))
    rows = usage_rows(value, NOW_MS, 0, 1, 0, absurd)
    assert rows is not None
    assert [each.event_id for each in rows.unstorable] == ["b"]
    assert [each.index for each in rows.unstorable] == [1]
    assert [row["event_id"] for row in table(usage_block([rows]))] == ["a", "c"]
    alone = usage_rows(batch(event(id="b")), NOW_MS, 0, 1, 0, absurd)
    assert alone is not None
    assert (alone.rows, len(alone.unstorable)) == (0, 1)


def test_columns_used_by_one_message_only() -> None:
    """A column that one message uses and another does not is filled in for the other."""
    rows = stored(
        batch(event(id="a"), event(id="b")),
        batch(event(id="c", tags={"x": "y"}, reported_cost_nano_usd=0, team="t")),
        batch(event(id="d", reported_cost_nano_usd=7)),
    )
    assert [row["tags"] for row in rows] == [{}, {}, {"x": "y"}, {}]
    assert [row["team"] for row in rows] == ["", "", "t", ""]
    assert [row["reported_cost_usd"] for row in rows][:2] == [None, None]
    assert rows[3]["reported_cost_usd"] == 7


def test_unused_columns_are_left_out() -> None:
    """Columns that no row uses are not sent."""
    message = rows_of(msgspec.json.encode(UsageBatch(lane="l", seq=1, events=(event(),))))
    assert message is not None
    names = {column.name for column in usage_block([message]).columns}
    assert "event_id" in names
    assert names.isdisjoint({"tags", "team", "extra", "is_deleted", "reported_cost_usd"})

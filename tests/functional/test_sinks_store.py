"""Rows, retractions and migrations on the real engine."""

import json
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import msgspec
import pytest

from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.config import InsertColumn
from meterline.schemas.dead_letter import DeadLetter, encode_dead_letter, encode_original
from meterline.schemas.reasons import RejectReason
from meterline.schemas.tables import TABLES, TableName
from meterline.schemas.usage import UsageEvent
from meterline.sinks.core.control_rows import TopicPosition, dead_letter
from meterline.sinks.core.usage_rows import Block, retraction_block, usage_block, usage_rows
from meterline.sinks.core.versions import Position, position_of
from meterline.sinks.migrate import Migration, MigrationError, migrate, shipped

pytestmark = [pytest.mark.functional, pytest.mark.timeout(400)]
NOW_MS = 1_793_000_000_000


@dataclass(frozen=True)
class Price:
    cost_nano_usd: int
    priced: bool = True
    model: str = "m"
    price_version: str = "v"


def event(**fields: Any) -> UsageEvent:
    named = {"id": "e-1", "time_ms": NOW_MS, "organisation": "acme", "key": "k-1", "model": "m"}
    return UsageEvent(**{**named, **fields})


def row(offset: int, each: UsageEvent, epoch: int = 0) -> Block:
    rows = usage_rows(
        msgspec.json.encode(each), NOW_MS, 0, offset, epoch, lambda e: Price(e.input_tokens)
    )
    assert rows is not None
    return usage_block([rows])


def retraction(offset: int, each: UsageEvent, epoch: int = 0) -> Block:
    letter = DeadLetter(
        topic="usage.events",
        partition=0,
        offset=offset,
        index=0,
        reason=RejectReason.CONFLICT,
        detail="same id, other body",
        timestamp_ms=NOW_MS,
        original_base64=encode_original(msgspec.json.encode(each)),
    )
    found = dead_letter(encode_dead_letter(letter), TopicPosition(epoch, 0))
    assert found is not None
    return retraction_block(found.retracted)


def insert(client: Client, block: Block, table: str = TableName.USAGE_EVENTS) -> None:
    client.insert(table, [InsertColumn(*each) for each in block.columns], block.data)


def visible(client: Client) -> list[tuple[Any, ...]]:
    return client.query(
        "SELECT event_id, key, input_tokens, source_epoch, source_offset "
        "FROM usage_events FINAL ORDER BY ALL"
    )


def assert_before_and_after_merge(client: Client, expected: list[tuple[Any, ...]]) -> None:
    assert visible(client) == expected
    client.command("OPTIMIZE TABLE usage_events FINAL")
    assert visible(client) == expected


ORIGINAL = event(input_tokens=1)
SAME_KEY = event(input_tokens=2)
OTHER_KEY = event(input_tokens=3, key="k-2")
OTHER_DAY = event(input_tokens=4, time_ms=NOW_MS - 86_400_000)


@pytest.mark.parametrize("conflict", [SAME_KEY, OTHER_KEY, OTHER_DAY])
@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_conflict_is_taken_back(
    store: Client, conflict: UsageEvent, order: tuple[int, ...]
) -> None:
    """Whatever arrives first of original, conflict and retraction, the original alone is seen."""
    blocks = [row(10, ORIGINAL), row(20, conflict), retraction(20, conflict)]
    for number in order:
        insert(store, blocks[number])
    assert_before_and_after_merge(store, [("e-1", "k-1", 1, 0, 10)])


def test_repeats_and_duplicates_change_nothing(store: Client) -> None:
    """Inserts repeated after a crash, and the same event sent again later, leave the first row."""
    blocks = [row(10, ORIGINAL), row(20, OTHER_KEY), retraction(20, OTHER_KEY), row(30, ORIGINAL)]
    for block in [*blocks, *blocks[::-1], *blocks]:
        insert(store, block)
    store.command("OPTIMIZE TABLE usage_events FINAL")
    insert(store, row(40, ORIGINAL))
    insert(store, blocks[1])
    assert_before_and_after_merge(store, [("e-1", "k-1", 1, 0, 10)])


def test_event_sent_again_after_a_lost_log_loses(store: Client) -> None:
    """In a new epoch offsets begin at 0 again, and an event of the old one is still the first."""
    insert(store, row(1_000, ORIGINAL, epoch=0))
    insert(store, row(0, ORIGINAL, epoch=1))
    insert(store, row(1, SAME_KEY, epoch=1))
    insert(store, retraction(1, SAME_KEY, epoch=1))
    assert_before_and_after_merge(store, [("e-1", "k-1", 1, 0, 1_000)])


def test_second_conflict_on_the_same_key(store: Client) -> None:
    """Two refused events with one sorting key are both taken back."""
    for offset in (20, 30):
        insert(store, row(offset, OTHER_KEY))
        insert(store, retraction(offset, OTHER_KEY))
    insert(store, row(10, ORIGINAL))
    assert_before_and_after_merge(store, [("e-1", "k-1", 1, 0, 10)])


def test_computed_source_columns(store: Client) -> None:
    """What ClickHouse computes from the version is what Python put into it."""
    position = Position(1_023, 2**44 - 1, 0)
    insert(store, row(position.offset, ORIGINAL, epoch=position.epoch))
    [(version, *place)] = store.query(
        "SELECT version, source_epoch, source_offset, source_index, received_ms, source_partition "
        "FROM usage_events"
    )
    assert position_of(version) == position
    assert place == [*position, NOW_MS, 0]


def test_every_field_comes_back(store: Client) -> None:
    """A row with every column used is stored and read back unchanged."""
    values: dict[str, Any] = {}
    for number, field in enumerate(UsageEvent.__struct_fields__, start=1):
        kind = UsageEvent.__annotations__[field]
        values[field] = f"text-{number}" if "Name" in kind or "str" in kind else number
    values |= {"time_ms": NOW_MS, "tags": {"a": "b", "ü": "ß"}, "stream": True}
    body = json.loads(msgspec.json.encode(event(**values)))
    rows = usage_rows(
        json.dumps({**body, "region": "eu"}).encode(), NOW_MS + 7, 9, 5, 0, lambda _: Price(123)
    )
    assert rows is not None
    block = usage_block([rows])
    insert(store, block)
    names = ", ".join(f"`{column.name}`" for column in block.columns)
    [stored] = store.query(f"SELECT {names} FROM usage_events")  # noqa: S608 - our own columns
    found = dict(zip((column.name for column in block.columns), stored, strict=True))
    sent = {
        column.name: values[0] for column, values in zip(block.columns, block.data, strict=True)
    }
    for money in ("cost_usd", "reported_cost_usd"):
        found[money] = int(found[money].scaleb(9))
    found["event_time"] = int(found["event_time"].timestamp() * 1000)
    assert found == sent
    assert found["extra"] == '{"region":"eu"}'


def test_tables_are_as_the_migrations_make_them(store: Client) -> None:
    """Names and types in schemas.tables are those of the database, and every column is explained."""
    for table in TABLES:
        columns = store.query(
            "SELECT name, type, comment, default_kind FROM system.columns "
            "WHERE database = currentDatabase() AND table = {table:String} ORDER BY position",
            {"table": table.name.value},
        )
        written = [(name, kind) for name, kind, _, default in columns if default != "ALIAS"]
        assert written == [tuple(column) for column in table.columns]
        assert all(comment for _, _, comment, _ in columns), table.name
    explained = store.query(
        "SELECT count(), countIf(comment = '') FROM system.tables WHERE database = currentDatabase()"
    )
    # With schema_migrations and the two views for analysts.
    assert explained == [(len(TABLES) + 3, 0)]


def test_migrations_apply_once(store: Client) -> None:
    """A second run does nothing; a new file alone is applied; the record says what was."""
    assert migrate(store) == []
    more = Migration(
        shipped()[-1].number + 1,
        "0999_more.sql",
        "CREATE TABLE {local:more} (a Int8) {on_cluster}\nENGINE = Memory;\n",
    )
    assert migrate(store, migrations=[*shipped(), more]) == ["0999_more.sql"]
    assert store.query(
        "SELECT name, checksum FROM schema_migrations FINAL WHERE number = {n:Int32}",
        {"n": more.number},
    ) == [("0999_more.sql", more.checksum)]
    with pytest.raises(MigrationError, match="install a newer version"):
        migrate(store)


def test_interrupted_migration_is_repeated(store: Client) -> None:
    """A crash between a file's statements and its record is repaired by the next run."""
    store.command(
        "ALTER TABLE schema_migrations DELETE WHERE number = 2 SETTINGS mutations_sync = 1"
    )
    assert migrate(store) == [shipped()[1].name]


def test_edited_migration_is_refused(store: Client) -> None:
    """A file changed after it was applied stops the migration before anything is done."""
    first, *rest = shipped()
    edited = Migration(first.number, first.name, first.template + "-- changed\n")
    with pytest.raises(MigrationError, match="was edited after it had been applied"):
        migrate(store, migrations=[edited, *rest])

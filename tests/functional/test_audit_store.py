"""Audit on the real engine: exports, personal data apart, erasure, the chain, retention."""

import csv
import io
import json
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest

from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.config import InsertColumn
from meterline.backends.clickhouse.errors import ClickHouseRefusedError
from meterline.reports.attribution.core.period import ReportPeriod
from meterline.reports.audit.core.chain import BreakKind, find_break
from meterline.reports.audit.core.export import FIELDS, Aggregate, AuditExport, ExportFormat
from meterline.reports.audit.export import export_text, write_parquet
from meterline.reports.audit.store import (
    DataClass,
    erase,
    read_actions,
    read_links,
    read_retention,
    seal,
    set_retention,
)
from meterline.schemas.dead_letter import encode_original
from meterline.schemas.tables import AUDIT_LOG
from meterline.schemas.topics import Topic
from meterline.schemas.usage import UsageEvent
from tests.functional.test_attribution_store import NOW_MS, Log

pytestmark = pytest.mark.functional
ALL = ReportPeriod("all", 0, NOW_MS * 2)


def event(number: int, **fields: Any) -> UsageEvent:
    return UsageEvent(
        **{
            "id": f"e-{number}",
            "time_ms": NOW_MS + number,
            "organisation": "acme",
            "key": f"k-{number % 2}",
            "key_name": '=HYPERLINK("x")',
            "model": "gpt-4.1",
            "input_tokens": 10,
            **fields,
        }
    )


ANA = {"user": "u-1", "user_email": "ana@acme.test", "client_ip": "10.0.0.1", "user_agent": 'a "b"'}
BOB = {
    "user": "u-2",
    "user_email": "bob@acme.test",
    "client_ip": "10.0.0.2",
    "user_agent": "c\r\nd",
}


def stored(store: Client) -> Log:
    log = Log(store)
    log.send([event(0, **ANA), event(1, **BOB), event(2), event(3, **ANA)])
    log.send([event(0, **ANA)])
    return log


def text(store: Client, form: ExportFormat, aggregate: Aggregate = Aggregate.NONE) -> str:
    return b"".join(export_text(store, AuditExport(ALL, aggregate=aggregate), form)).decode()


def test_csv_has_the_fixed_fields(store: Client) -> None:
    """One row per distinct request, the fields in their order, quoting of RFC 4180, no formulas."""
    stored(store)
    content = text(store, ExportFormat.CSV)
    assert content.startswith(
        "timestamp,api_key_id,key_name,user_email,action,resource_type,resource_id,model,"
        "input_tokens,output_tokens,cost_usd,ip_address,user_agent,request_id\r\n"
    )
    rows = sorted(
        csv.DictReader(io.StringIO(content, newline="")), key=lambda row: row["timestamp"]
    )
    assert [row["user_email"] for row in rows] == [
        "ana@acme.test",
        "bob@acme.test",
        "",
        "ana@acme.test",
    ]
    assert rows[1] == {
        "timestamp": "2026-10-26T07:33:20.001Z",
        "api_key_id": "k-1",
        "key_name": '\'=HYPERLINK("x")',
        "user_email": "bob@acme.test",
        "action": "model.request",
        "resource_type": "model",
        "resource_id": "gpt-4.1",
        "model": "gpt-4.1",
        "input_tokens": "10",
        "output_tokens": "0",
        "cost_usd": "0.000000070",
        "ip_address": "10.0.0.2",
        "user_agent": "c\r\nd",
        "request_id": "e-1",
    }


def test_csv_guards_formulas(store: Client) -> None:
    """Every beginning that a spreadsheet computes is guarded, in every column of text."""
    starts = ["=", "+", "-", "@", "\t", "\r"]
    Log(store).send(
        [
            event(number, key_name=start + "1", request_id=start + "2", user_agent=start)
            for number, start in enumerate(starts)
        ]
    )
    rows = csv.DictReader(io.StringIO(text(store, ExportFormat.CSV), newline=""))
    found = {(row["key_name"], row["request_id"], row["user_agent"]) for row in rows}
    assert found == {(f"'{start}1", f"'{start}2", f"'{start}") for start in starts}


def test_json_lines_and_parquet_hold_the_same(store: Client) -> None:
    """Money stays exact in both, and cells are as sent, for no spreadsheet reads them."""
    stored(store)
    lines = [json.loads(line) for line in text(store, ExportFormat.JSONL).splitlines()]
    file = io.BytesIO()
    assert write_parquet(store, AuditExport(ALL), file) == len(lines) == 4
    table = pq.read_table(io.BytesIO(file.getvalue()))
    assert table.column_names == list(FIELDS) == list(lines[0])
    assert str(table.schema.field("cost_usd").type) == "decimal128(38, 9)"
    for row in lines:
        assert row["key_name"] == '=HYPERLINK("x")'
    found = sorted(f"{row['cost_usd']:.9f}" for row in table.to_pylist())
    assert found == sorted(row["cost_usd"] for row in lines) == ["0.000000070"] * 4


def test_per_key(store: Client) -> None:
    """One row per key, with requests, tokens and cost summed over distinct events."""
    stored(store)
    rows = csv.DictReader(io.StringIO(text(store, ExportFormat.CSV, Aggregate.PER_KEY), newline=""))
    sums = {row["api_key_id"]: (row["requests"], row["cost_usd"]) for row in rows}
    assert sums == {"k-0": ("2", "0.000000140"), "k-1": ("2", "0.000000140")}


def test_failure_in_the_middle_is_an_error(store: Client) -> None:
    """A stream that the server breaks off is not taken for a whole file."""
    sql = "SELECT throwIf(number = 3000000), toString(number) FROM numbers(4000000)"
    with pytest.raises(ClickHouseRefusedError, match="throwIf"):
        for _ in store.stream(sql, {}, "CSV"):
            pass


def test_erased_person_is_nowhere(store: Client) -> None:
    """After an erasure no table holds the subject, everybody else's data stays, and all totals."""
    log = stored(store)
    # A rejected message that names her.
    value = msgspec.json.encode(event(9, time_ms=NOW_MS * 3, **ANA))
    log.store(
        Topic.DEAD_LETTERS,
        msgspec.json.encode(
            {
                "topic": "usage.events",
                "partition": 0,
                "offset": 9,
                "index": 0,
                "reason": "future_time",
                "detail": "",
                "timestamp_ms": NOW_MS,
                "original_base64": encode_original(value),
            }
        ),
        99,
    )
    before = text(store, ExportFormat.CSV, Aggregate.PER_KEY)
    assert erase(store, "acme", "ana@acme.test") == (1, 1)
    assert text(store, ExportFormat.CSV, Aggregate.PER_KEY) == before
    content = text(store, ExportFormat.CSV)
    assert "ana@" not in content
    assert "10.0.0.1" not in content
    assert "bob@acme.test" in content
    tables = store.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() "
        "AND endsWith(engine, 'MergeTree')"
    )
    for (table,) in tables:
        rows = store.query(f"SELECT toString(tuple(*)) FROM {table}")  # noqa: S608 - our own tables
        assert not any("ana@acme" in row[0] or "10.0.0.1" in row[0] for row in rows), table
    assert erase(store, "acme", "ana@acme.test") == (0, 0)


def act(store: Client, *offsets: int) -> None:
    rows = [
        (f"a-{offset}", NOW_MS + offset, "ana", "policy.changed", "o", "why", "{}", "{}", offset)
        for offset in offsets
    ]
    columns = [InsertColumn(*column) for column in AUDIT_LOG.columns]
    store.insert(AUDIT_LOG.name, columns, list(zip(*rows, strict=True)))


def test_chain_grows_and_shows_the_first_break(store: Client) -> None:
    """Sealing repeats harmlessly; an action changed in the database is found at its number."""
    act(store, 1, 2, 3)
    assert (seal(store), seal(store)) == (3, 0)
    act(store, 4, 3)
    assert seal(store) == 1
    assert find_break(read_actions(store), read_links(store)) is None
    store.command(
        "ALTER TABLE audit_log UPDATE actor = 'nobody' WHERE id = 'a-2' SETTINGS mutations_sync = 2"
    )
    finding = find_break(read_actions(store), read_links(store))
    assert finding is not None
    assert (finding.kind, finding.seq) == (BreakKind.CHANGED, 2)


def test_retention_per_class(store: Client) -> None:
    """Each class has its own time, and can be kept indefinitely again."""
    assert read_retention(store)[DataClass.PERSONAL] == 400
    set_retention(store, DataClass.EVENTS, 1_000)
    assert read_retention(store)[DataClass.EVENTS] == 1_000
    set_retention(store, DataClass.EVENTS, 0)
    assert read_retention(store)[DataClass.EVENTS] is None


def test_views_for_analysts(store: Client) -> None:
    """The views hold each event once, without anything personal."""
    stored(store)
    assert store.query("SELECT count(), sum(cost_usd) * 1000000000 FROM analyst_events") == [
        (4, 280)
    ]
    assert store.query("SELECT count() FROM analyst_spend") == [(0,)]

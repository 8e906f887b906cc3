"""The embedded ClickHouse through clickhouse-connect and by hand, as clients of a real one."""

# ruff: noqa: S608, S310 - table names made here, http to this machine

import gzip
import http.client
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError

from meterline.embedded.clickhouse import start_clickhouse
from meterline.embedded.clickhouse_http import STATEMENTS_MAX
from meterline.embedded.processes import free_port
from tests.servers import running_clickhouse

pytestmark = pytest.mark.functional

TABLE_NUMBERS = count()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    with running_clickhouse(tmp_path_factory.mktemp("clickhouse")) as found:
        yield found


@pytest.fixture
def client(address: tuple[str, int]) -> Iterator[Client]:
    with connect(address) as made:
        yield made


@pytest.fixture
def table() -> str:
    return f"table_{next(TABLE_NUMBERS)}"


def connect(address: tuple[str, int], **options: Any) -> Client:
    return clickhouse_connect.get_client(
        host=address[0], port=address[1], interface="http", **options
    )


def rows_of(client: Client, sql: str) -> Sequence[Sequence[Any]]:
    return client.query(sql).result_rows


def get(address: tuple[str, int], sql: str, **parameters: str) -> tuple[int, bytes, Any]:
    """As `curl` does: status, body and headers."""
    words = urllib.parse.urlencode({"query": sql, **parameters})
    url = f"http://{address[0]}:{address[1]}/?{words}"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers


def post(
    address: tuple[str, int], body: Any, headers: dict[str, str] | None = None, path: str = "/"
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(*address, timeout=30)
    try:
        connection.request("POST", path, body=body, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_handshake(client: Client) -> None:
    """The client learns version and time zone, and pings."""
    assert (client.server_version or "").count(".") == 3
    assert client.ping()
    assert client.command("SELECT 1") == 1


def test_typed_rows_come_back_as_they_were_inserted(client: Client, table: str) -> None:
    """Every column type that the pipeline's tables use survives insert and query."""
    client.command(
        f"CREATE TABLE {table} (id UInt64, cost Decimal(18, 9), tags Map(String, String), "
        "note Nullable(String), at DateTime64(3, 'UTC'), model LowCardinality(String), "
        "kind Enum8('a' = 1, 'b' = 2), flags Array(UInt8), total Decimal(38, 9)) "
        "ENGINE = MergeTree ORDER BY id"
    )
    at = datetime(2026, 11, 21, 12, 0, 0, 123000, tzinfo=UTC)
    row = [2**63, Decimal("-0.000000001"), {"team": "ü"}, None, at, "gpt-4.1", "b", [1, 2]]
    row.append(Decimal("12345678901234567890.000000001"))
    names = ["id", "cost", "tags", "note", "at", "model", "kind", "flags", "total"]
    summary = client.insert(table, [row], column_names=names)
    assert summary.written_rows == 1
    [found] = client.query(f"SELECT * FROM {table}", query_tz="UTC").result_rows
    assert list(found[:4]) == row[:4]
    assert found[4].replace(tzinfo=UTC) == at
    assert list(found[5:]) == row[5:]


def test_parameters_are_bound_by_the_server(client: Client) -> None:
    """Values with quotes, tabs and backslashes arrive unchanged, in every type."""
    value = "it's a\ttab, a \\ and\na line end"
    sql = "SELECT {text:String}, {list:Array(UInt32)}, {cost:Decimal(18, 9)}"
    parameters = {"text": value, "list": [1, 2], "cost": Decimal("0.5")}
    assert client.query(sql, parameters=parameters).result_rows == [
        (value, [1, 2], Decimal("0.500000000"))
    ]


def test_parameters_in_a_form(address: tuple[str, int]) -> None:
    """Long parameters may come as a multipart form."""
    with connect(address, form_encode_query_params=True) as client:
        text = "x" * 100_000
        answer = client.query("SELECT length({text:String})", parameters={"text": text})
    assert answer.result_rows == [(100_000,)]


def test_final_reads_the_newest_version(client: Client, table: str) -> None:
    """ReplacingMergeTree and FINAL work as the pipeline's tables need them."""
    client.command(
        f"CREATE TABLE {table} (id UInt64, v UInt64) ENGINE = ReplacingMergeTree(v) ORDER BY id"
    )
    for version in (2, 1):
        client.insert(table, [[1, version]], column_names=["id", "v"])
    assert rows_of(client, f"SELECT v FROM {table} FINAL") == [(2,)]


def test_a_repeated_deduplication_token_inserts_once(client: Client, table: str) -> None:
    """The same token again changes nothing; another token with the same rows inserts."""
    client.command(
        f"CREATE TABLE {table} (id UInt64) ENGINE = MergeTree ORDER BY id "
        "SETTINGS non_replicated_deduplication_window = 100"
    )
    for token in ("topic-0-1-5", "topic-0-1-5", "topic-0-6-9"):
        settings = {"insert_deduplication_token": token}
        client.insert(table, [[1], [2]], column_names=["id"], settings=settings)
    assert client.command(f"SELECT count() FROM {table}") == 4


def test_errors_carry_clickhouse_codes(client: Client) -> None:
    """The driver raises DatabaseError with ClickHouse's own code and name."""
    with pytest.raises(DatabaseError, match="UNKNOWN_TABLE") as caught:
        client.query("SELECT * FROM nowhere")
    assert caught.value.code == 60
    with pytest.raises(DatabaseError, match="SYNTAX_ERROR"):
        client.command("SELEC 1")
    with pytest.raises(DatabaseError, match="UNKNOWN_DATABASE"):
        client.query("SELECT 1", settings={"database": "nowhere"})


def test_an_insert_that_fails_is_an_error_of_the_driver(client: Client, table: str) -> None:
    """A column that does not exist fails the insert; nothing is written."""
    client.command(f"CREATE TABLE {table} (id UInt64) ENGINE = MergeTree ORDER BY id")
    with pytest.raises(DatabaseError, match="Code: 33"):
        client.raw_insert(table, ["id"], b"\x01\x01\x02id\x06UInt64", fmt="Native")
    with pytest.raises(DatabaseError, match="NO_SUCH_COLUMN"):
        client.raw_insert(table, ["nope"], b"1\n", fmt="TSV")
    assert client.command(f"SELECT count() FROM {table}") == 0


def test_an_insert_that_the_table_refuses_is_an_error(client: Client, table: str) -> None:
    """What fails while it is written (constraint, too many parts) is never acknowledged."""
    client.command(
        f"CREATE TABLE {table} (id UInt64, CONSTRAINT small CHECK id < 10) "
        "ENGINE = MergeTree ORDER BY id SETTINGS parts_to_delay_insert = 2, parts_to_throw_insert = 2"
    )
    client.command(f"SYSTEM STOP MERGES {table}")
    with pytest.raises(DatabaseError, match="VIOLATED_CONSTRAINT"):
        client.insert(table, [[1], [50]], column_names=["id"])
    for one in (1, 2):
        client.insert(table, [[one]], column_names=["id"])
    with pytest.raises(DatabaseError, match="TOO_MANY_PARTS"):
        client.insert(table, [[3]], column_names=["id"])
    assert client.command(f"SELECT count() FROM {table}") == 2


def test_settings_in_the_text_of_an_insert(address: tuple[str, int], table: str) -> None:
    """A SETTINGS clause before FORMAT is honoured."""
    with connect(address) as client:
        client.command(
            f"CREATE TABLE {table} (id UInt64) ENGINE = MergeTree ORDER BY id "
            "SETTINGS non_replicated_deduplication_window = 100"
        )
        for data in (b"1", b"2"):
            text = (
                f"INSERT INTO {table} (id) SETTINGS insert_deduplication_token = 'a' FORMAT TSV\n"
            )
            assert post(address, text.encode() + data)[0] == 200
        assert rows_of(client, f"SELECT id FROM {table}") == [(1,)]


@pytest.mark.parametrize("compression", ["lz4", "zstd", "gzip", False])
def test_every_compression_of_the_driver(
    address: tuple[str, int], table: str, compression: str | bool
) -> None:
    """Blocks arrive whole with each compression the driver knows, over several frames."""
    with connect(address, compress=compression) as client:
        client.command(f"CREATE TABLE {table} (id UInt64, s String) ENGINE = MergeTree ORDER BY id")
        ids = list(range(100_000))
        client.insert(
            table,
            [ids, [f"row {one}" for one in ids]],
            column_names=["id", "s"],
            column_oriented=True,
        )
        assert rows_of(client, f"SELECT count(), sum(id), uniqExact(s) FROM {table}") == [
            (100_000, 4_999_950_000, 100_000)
        ]


def test_a_large_insert_is_one_part(client: Client, table: str) -> None:
    """A million rows in one insert are squashed as ClickHouse does it."""
    client.command(f"CREATE TABLE {table} (id UInt64) ENGINE = MergeTree ORDER BY id")
    client.insert(table, [list(range(1_000_000))], column_names=["id"], column_oriented=True)
    assert client.command(f"SELECT count() FROM {table}") == 1_000_000
    parts = f"SELECT count() FROM system.parts WHERE table = '{table}' AND active"
    assert client.command(parts) == 1


def test_insert_select_and_values(client: Client, table: str) -> None:
    """INSERT with its rows in the text or from a SELECT needs no data in the body."""
    client.command(f"CREATE TABLE {table} (id UInt64) ENGINE = MergeTree ORDER BY id")
    client.command(f"INSERT INTO {table} VALUES (1), ({{two:UInt64}})", parameters={"two": 2})
    client.command(f"INSERT INTO {table} SELECT number + 3 FROM numbers(2)")
    assert rows_of(client, f"SELECT id FROM {table} ORDER BY id") == [(1,), (2,), (3,), (4,)]


def test_a_large_result_is_streamed(client: Client) -> None:
    """A streamed result arrives whole, block by block."""
    total = 0
    with client.query_row_block_stream("SELECT number FROM numbers(1000000)") as stream:
        for block in stream:
            total += len(block)
    assert total == 1_000_000


def test_an_error_in_the_middle_of_a_stream_reaches_the_driver(client: Client) -> None:
    """A statement that fails after its first rows does not look like a short result."""
    sql = "SELECT throwIf(number = 7000000, 'too far'), number FROM numbers(8000000)"
    with (
        pytest.raises(StreamFailureError, match="too far"),
        client.query_row_block_stream(sql) as stream,
    ):
        for _ in stream:
            pass


def test_an_abandoned_stream_frees_the_server(client: Client) -> None:
    """A client that stops reading does not keep the statement alive."""
    with client.query_row_block_stream("SELECT number FROM numbers(100000000)") as stream:
        next(iter(stream))
    assert client.command("SELECT 1") == 1


def test_raw_query_and_raw_stream(client: Client) -> None:
    """Formats are honoured, streamable or not."""
    assert client.raw_query("SELECT 1 AS a", fmt="JSONEachRow") == b'{"a":1}\n'
    assert b'"rows": 1' in client.raw_query("SELECT 1 AS a", fmt="JSON")
    with client.raw_stream("SELECT number FROM numbers(3)", fmt="CSVWithNames") as stream:
        assert stream.read() == b'"number"\n0\n1\n2\n'


def test_empty_results(client: Client) -> None:
    """No rows is an empty result and not an error; LIMIT 0 names the columns."""
    assert rows_of(client, "SELECT 1 AS a WHERE 0") == []
    assert client.query("SELECT 1 AS a LIMIT 0").column_names == ("a",)
    assert client.command("SELECT 'x' WHERE 0") == ""


def test_settings_hold_for_one_request_only(client: Client) -> None:
    """A setting or USE of one request is not seen by the next."""
    name = "SELECT value FROM system.settings WHERE name = 'max_block_size'"
    default = client.command(name)
    assert client.command(name, settings={"max_block_size": 4242}) == 4242
    client.command("USE system")
    assert client.command("SELECT currentDatabase()") == "default"
    assert client.command(name) == default


def test_databases(address: tuple[str, int], client: Client) -> None:
    """A client's database is used for its statements and inserts."""
    client.command("CREATE DATABASE IF NOT EXISTS `other-place`")
    with connect(address, database="other-place") as other:
        other.command("CREATE TABLE t (id UInt64) ENGINE = MergeTree ORDER BY id")
        other.insert("t", [[1]], column_names=["id"])
        assert other.command("SELECT count() FROM t") == 1
    with pytest.raises(DatabaseError, match="UNKNOWN_TABLE"):
        client.command("SELECT count() FROM t")


def test_a_time_limit_is_an_error(client: Client) -> None:
    """`max_execution_time` ends a statement with ClickHouse's TIMEOUT_EXCEEDED."""
    with pytest.raises(DatabaseError, match="TIMEOUT_EXCEEDED"):
        client.query(
            "SELECT sum(cityHash64(number)) FROM numbers(100000000000)",
            settings={"max_execution_time": 0.2},
        )


def test_many_clients_at_once(address: tuple[str, int], table: str) -> None:
    """Several clients insert and read at the same time; every row is there."""
    with connect(address) as client:
        client.command(f"CREATE TABLE {table} (id UInt64) ENGINE = MergeTree ORDER BY id")

    def work(number: int) -> None:
        with connect(address) as client:
            for start in range(10):
                first = (number * 10 + start) * 100
                rows = [[one] for one in range(first, first + 100)]
                client.insert(table, rows, column_names=["id"])
                client.command(f"SELECT count() FROM {table}")

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(work, range(12)))
    with connect(address) as client:
        assert rows_of(client, f"SELECT count(), uniqExact(id) FROM {table}") == [(12_000, 12_000)]


def test_more_statements_than_the_limit_are_refused(address: tuple[str, int]) -> None:
    """Above the limit a statement gets 503 and ClickHouse's code; the others go on."""

    def work(_: int) -> int:
        return get(address, "SELECT sleep(0.5)")[0]

    with ThreadPoolExecutor(STATEMENTS_MAX + 16) as pool:
        answers = list(pool.map(work, range(STATEMENTS_MAX + 16)))
    assert set(answers) == {200, 503}
    assert answers.count(200) >= STATEMENTS_MAX


def test_an_analyst_with_curl(address: tuple[str, int]) -> None:
    """A GET answers tab-separated text with ClickHouse's headers; ping says Ok."""
    status, body, headers = get(address, "SELECT 1, 'a'", query_id="my-id")
    assert (status, body) == (200, b"1\ta\n")
    assert headers["X-ClickHouse-Format"] == "TabSeparated"
    assert headers["X-ClickHouse-Query-Id"] == "my-id"
    assert get(address, "SELECT 1 FORMAT JSONEachRow")[1] == b'{"1":1}\n'
    assert get(address, "SELECT 1", default_format="CSVWithNames")[1] == b'"1"\n1\n'
    url = f"http://{address[0]}:{address[1]}"
    for path, text in (("/ping", b"Ok.\n"), ("/", b"Ok.\n")):
        with urllib.request.urlopen(url + path, timeout=10) as answer:
            assert answer.read() == text


def test_errors_by_hand(address: tuple[str, int]) -> None:
    """An error has a status, ClickHouse's code in a header and its text in the body."""
    status, body, headers = get(address, "SELECT * FROM nowhere")
    assert status == 404
    assert headers["X-ClickHouse-Exception-Code"] == "60"
    assert body.startswith(b"Code: 60. DB::Exception: ")
    assert b"(version " in body


def test_a_get_changes_nothing(address: tuple[str, int], table: str) -> None:
    """As in ClickHouse a GET is read-only: a link cannot change data."""
    status, body, _ = get(address, f"CREATE TABLE {table} (id UInt64) ENGINE = Memory")
    assert status == 500
    assert b"READONLY" in body


def test_web_pages_of_other_sites_are_refused(address: tuple[str, int]) -> None:
    """A browser cannot be made to send statements here by another site or name."""
    assert post(address, b"SELECT 1", {"Origin": "https://evil.example"})[0] == 403
    assert post(address, b"SELECT 1", {"Host": "evil.example:8123"})[0] == 403
    assert post(address, b"SELECT 1", {"Host": "localhost:8123"}) == (200, b"1\n")


def test_inserts_by_hand(address: tuple[str, int], client: Client, table: str) -> None:
    """Chunked and compressed bodies, statement in the URL or before the data."""
    client.command(f"CREATE TABLE {table} (id UInt64) ENGINE = MergeTree ORDER BY id")
    path = "/?" + urllib.parse.urlencode({"query": f"INSERT INTO {table} FORMAT TSV"})
    assert post(address, iter([b"1\n", b"2\n"]), path=path)[0] == 200
    packed = gzip.compress(b"3\n")
    assert post(address, packed, {"Content-Encoding": "gzip"}, path)[0] == 200
    text = f"INSERT INTO {table} (id) FORMAT CSV\n4\n5\n".encode()
    assert post(address, text)[0] == 200
    assert rows_of(client, f"SELECT id FROM {table} ORDER BY id") == [(one,) for one in range(1, 6)]


def test_broken_bodies_are_refused(address: tuple[str, int]) -> None:
    """A truncated or wrongly labelled body is a 4xx or 5xx with a code, never a hang."""
    packed = gzip.compress(b"SELECT 1 " + os.urandom(200).hex().encode())
    for body, encoding in ((packed[:-9], "gzip"), (b"SELECT 1", "lz4"), (b"SELECT 1", "snappy")):
        status, text = post(address, body, {"Content-Encoding": encoding})
        assert status >= 400
        assert text.startswith(b"Code: ")


def test_a_client_that_leaves_an_insert_leaves_no_rows(tmp_path: Path) -> None:
    """An insert whose sender is gone before the end is not in the table, nor in the log."""
    server = start_clickhouse(tmp_path)
    address = ("127.0.0.1", server.port)
    try:
        with connect(address) as client:
            client.command("CREATE TABLE t (id UInt64) ENGINE = MergeTree ORDER BY id")
            words = urllib.parse.urlencode({"query": "INSERT INTO t FORMAT TSV"})
            for rows in (b"1\n" * 2, b"1\n" * 1_000_000):
                connection = http.client.HTTPConnection(*address, timeout=10)
                connection.putrequest("POST", f"/?{words}")
                connection.putheader("Content-Length", "5000000")
                connection.endheaders(rows)
                connection.close()
            # The server has noticed when none of the inserts is under way any more.
            running = "SELECT count() FROM system.processes WHERE query LIKE 'INSERT%'"
            while client.command(running) != 0:
                time.sleep(0.01)
            assert client.command("SELECT count() FROM t") == 0
        assert "Traceback" not in server.output_tail()
        assert "ready on" in server.output_tail()
    finally:
        server.stop()


def test_answered_inserts_survive_kill_9(tmp_path: Path) -> None:
    """After SIGKILL and a restart on the same directory every answered insert is there."""
    server = start_clickhouse(tmp_path)
    with connect(("127.0.0.1", server.port)) as client:
        client.command("CREATE TABLE t (id UInt64) ENGINE = MergeTree ORDER BY id")
        for one in range(20):
            client.insert("t", [[one]], column_names=["id"])
    server.kill()
    with running_clickhouse(tmp_path) as address, connect(address) as client:
        assert client.command("SELECT count() FROM t") == 20


def test_sigterm_lets_running_statements_end(tmp_path: Path) -> None:
    """SIGTERM: the statement that runs is answered, the server ends with status 0."""
    server = start_clickhouse(tmp_path)
    address = ("127.0.0.1", server.port)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(get, address, "SELECT sleep(1)")
        # The statement is known to run once the engine lists it.
        while b"sleep(1)" not in get(address, "SELECT query FROM system.processes")[1]:
            time.sleep(0.01)
        assert server.stop() == 0
        assert running.result()[:2] == (200, b"0\n")


def run_server(data_dir: Path, port: int) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        (
            sys.executable,
            "-m",
            "meterline.embedded.clickhouse",
            "--data",
            str(data_dir),
            "--port",
            str(port),
        ),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def one_line(done: "subprocess.CompletedProcess[str]") -> str:
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    return line


def test_what_its_user_must_repair_is_one_line(address: tuple[str, int], tmp_path: Path) -> None:
    """A busy port or a directory in use ends the server with one line that says what to do."""
    assert "port" in (busy := one_line(run_server(tmp_path / "a", address[1])))
    assert "choose another port" in busy
    with running_clickhouse(tmp_path / "b"):
        in_use = one_line(run_server(tmp_path / "b", free_port()))
    assert "is in use by another process" in in_use
    (tmp_path / "file").touch()
    assert "choose another data directory" in one_line(run_server(tmp_path / "file", free_port()))


def test_the_keyboard_ends_it_too(tmp_path: Path) -> None:
    """SIGINT ends the server as SIGTERM does."""
    server = start_clickhouse(tmp_path)
    os.kill(server.pid, signal.SIGINT)
    while server.running():
        time.sleep(0.01)
    assert server.stop() == 0

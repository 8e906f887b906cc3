"""The ClickHouse client, against the real engine behind the embedded server."""

import socket
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
import stamina

from meterline.backends.clickhouse.client import READ_ATTEMPTS_MAX, Client
from meterline.backends.clickhouse.config import ClickHouseConfig, InsertColumn
from meterline.backends.clickhouse.errors import (
    ClickHouseFatalError,
    ClickHouseRefusedError,
    ClickHouseUnavailableError,
)
from meterline.embedded.clickhouse import start_clickhouse
from tests.servers import running_clickhouse

pytestmark = pytest.mark.functional


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseConfig]:
    with running_clickhouse(tmp_path_factory.mktemp("store")) as (host, port):
        yield ClickHouseConfig(host, port)


@pytest.fixture
def client(config: ClickHouseConfig) -> Iterator[Client]:
    opened = Client(config)
    yield opened
    opened.close()


@pytest.fixture
def table(client: Client, request: pytest.FixtureRequest) -> str:
    name: str = request.node.name.replace("[", "_").rstrip("]")
    client.command(
        f"CREATE TABLE {name} (id String, small Decimal(18, 9), large Decimal(38, 9), "
        f"maybe Nullable(Decimal(18, 9)), at DateTime64(3, 'UTC')) ENGINE = MergeTree ORDER BY id "
        f"SETTINGS non_replicated_deduplication_window = 10"
    )
    return name


MONEY = (
    InsertColumn("id", "String"),
    InsertColumn("small", "Decimal(18, 9)"),
    InsertColumn("large", "Decimal(38, 9)"),
    InsertColumn("maybe", "Nullable(Decimal(18, 9))"),
    InsertColumn("at", "DateTime64(3, 'UTC')"),
)


def count(client: Client, table: str) -> int:
    return int(client.query("SELECT count() FROM {t:Identifier}", {"t": table})[0][0])


def test_money_is_stored_to_the_last_place(client: Client, table: str) -> None:
    """Integers of nano-dollars come back as the same amount of dollars, at both ends of the range."""
    small = [1, -1, 10**18 - 1, 1 - 10**18]
    large = [1, -(10**30) - 7, 10**37, 0]
    client.insert(table, MONEY, [list("abcd"), small, large, [None, 5, None, -5], [1, 2, 3, 4]])
    rows = client.query(
        "SELECT small, large, maybe, toUnixTimestamp64Milli(at) FROM {t:Identifier} ORDER BY id",
        {"t": table},
    )
    assert [row[0] for row in rows] == [Decimal(each).scaleb(-9) for each in small]
    assert [f"{row[1]:f}" for row in rows][:3] == [
        "0.000000001",
        "-1000000000000000000000.000000007",
        "10000000000000000000000000000.000000000",
    ]
    assert [row[2] for row in rows] == [None, Decimal("5E-9"), None, Decimal("-5E-9")]
    assert [row[3] for row in rows] == [1, 2, 3, 4]


def test_same_token_inserts_once(client: Client, table: str) -> None:
    """An insert repeated with its token, as after a lost answer, changes nothing."""
    for token in ("t-1", "t-1", "t-2"):
        client.insert(table, MONEY[:1], [["a"]], dedup_token=token)
    assert count(client, table) == 2


def test_parameters_are_bound(client: Client) -> None:
    """A value that looks like SQL stays a value."""
    nasty = "'; DROP TABLE x; -- \\ {a:String} \n\t'"
    assert client.query("SELECT {a:String}, {b:Array(Int64)}", {"a": nasty, "b": [1, -2]}) == [
        (nasty, [1, -2])
    ]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("small", [10**30]),
        ("small", ["no number"]),
        ("id", ["\ud800"]),
        ("id", [None]),
        ("at", [2**70]),
    ],
)
def test_rows_that_do_not_fit_are_refused(
    client: Client, config: ClickHouseConfig, column: str, values: list[object]
) -> None:
    """A value that its column cannot hold is Refused, and the next insert works again."""
    name = "refusing"
    client.command(
        f"CREATE TABLE IF NOT EXISTS {name} (id String, small Decimal(18, 9), "
        f"at DateTime64(3, 'UTC')) ENGINE = MergeTree ORDER BY id"
    )
    types = {each.name: each for each in MONEY}
    before = count(client, name)
    with pytest.raises(ClickHouseRefusedError):
        client.insert(name, [types[column]], [values])
    client.insert(name, [types["id"]], [["good"]])
    assert count(client, name) == before + 1


@pytest.mark.parametrize(
    "sql",
    ["SELECT * FROM no_such_table", "SELECT no_such_column FROM system.one"],
)
def test_wrong_schema_stops(client: Client, sql: str) -> None:
    """A missing table or column stops the caller and names the remedy."""
    with pytest.raises(ClickHouseFatalError, match="meterline migrate"):
        client.query(sql)


def test_missing_column_of_an_insert_stops(client: Client, table: str) -> None:
    """An insert into a column that is not there is no poison row: it stops."""
    with pytest.raises(ClickHouseFatalError, match="meterline migrate"):
        client.insert(table, [InsertColumn("nope", "String")], [["a"]])


def test_wrong_sql_is_refused(client: Client) -> None:
    """A syntax error is Refused and carries ClickHouse's code."""
    with pytest.raises(ClickHouseRefusedError) as caught:
        client.query("SELEKT 1")
    assert caught.value.code == 62


def test_unreachable_is_unavailable(unused_port: int) -> None:
    """No server at the address: Unavailable after bounded attempts, naming address and remedy."""
    unreachable = Client(ClickHouseConfig("127.0.0.1", unused_port))
    with (
        stamina.set_testing(True, attempts=READ_ATTEMPTS_MAX),
        pytest.raises(
            ClickHouseUnavailableError,
            match=f"127.0.0.1:{unused_port}.*start it, or correct host and port",
        ),
    ):
        unreachable.query("SELECT 1")
    with pytest.raises(ClickHouseUnavailableError):
        unreachable.ping()
    with pytest.raises(ClickHouseUnavailableError):
        unreachable.insert("t", MONEY[:1], [["a"]])


def test_another_server_stops() -> None:
    """A port that belongs to something else than ClickHouse is named as such."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(
                    b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnope"
                )

        thread = threading.Thread(target=answer)
        thread.start()
        client = Client(ClickHouseConfig("127.0.0.1", listener.getsockname()[1]))
        with pytest.raises(ClickHouseFatalError, match="this may be no ClickHouse"):
            client.ping()
        thread.join()


def test_reconnects_after_a_restart(tmp_path: Path) -> None:
    """A client outlives its server: the statement after a restart works again."""
    server = start_clickhouse(tmp_path)
    client = Client(ClickHouseConfig("127.0.0.1", server.port))
    client.ping()
    server.stop()
    with pytest.raises(ClickHouseUnavailableError):
        client.ping()
    server = start_clickhouse(tmp_path, server.port)
    try:
        assert client.query("SELECT 1") == [(1,)]
    finally:
        client.close()
        server.stop()


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port

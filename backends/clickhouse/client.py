"""One thread's connection to ClickHouse: bounded statements, streamed answers, whole inserts."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import clickhouse_connect
import stamina
from clickhouse_connect.driver import exceptions as driver
from urllib3 import exceptions as transport

from meterline.backends.clickhouse.columns import column_type
from meterline.backends.clickhouse.config import ClickHouseConfig, InsertColumn
from meterline.backends.clickhouse.error_mapping import ERROR_TEXT_LENGTH_MAX, client_error
from meterline.backends.clickhouse.errors import ClickHouseUnavailableError

# A live server answers a connect within milliseconds, across continents within 0.3 s.
CONNECT_SECONDS_MAX = 5
# Reads are tried this often before the caller gets ClickHouseUnavailableError: bridges a restart of the embedded
# server (about 2 s), and an operator at a terminal does not wait longer for a hopeless one.
READ_ATTEMPTS_MAX = 4
READ_SECONDS_MAX = 10.0
# One read of a streamed answer: large enough to make the loop free, small beside any memory.
STREAM_BYTES = 1024 * 1024
# Events since 2020 by month: the server's default of 100 partitions would end in 2028.
PARTITIONS_PER_INSERT_MAX = 1_000
# All rows of one sorting key lie in one partition, in every one of Meterline's tables (a test says so). The
# server cannot know: without this a read with FINAL of one month reads all months, and merges what
# is merged already. Over three months: 3.5 s instead of 12.5 s.
READ_SETTINGS: Mapping[str, str] = MappingProxyType(
    {"do_not_merge_across_partitions_select_final": "1"}
)

INSERT_SETTINGS: Mapping[str, object] = MappingProxyType(
    {
        # An answer has to mean that the rows are in a part: with asynchronous inserts, the default
        # of newer servers, a crash after the answer may lose them.
        "async_insert": 0,
        # On a Distributed table the rows have to be on their shard when the answer comes.
        "distributed_foreground_insert": 1,
        "max_partitions_per_insert_block": PARTITIONS_PER_INSERT_MAX,
        # Rows of one block do not replace each other before they are written, which costs several
        # times the writing; readers use FINAL, and merges replace them.
        "optimize_on_insert": 0,
    }
)


class Client:
    """One thread's connection to ClickHouse; opened by the first statement, reopened when lost."""

    def __init__(self, config: ClickHouseConfig) -> None:
        """Keep the configuration; nothing is sent yet."""
        self.config = config
        self._driver: Any = None

    def ping(self) -> None:
        """Ask for a sign of life, once.

        Raises:
            ClickHouseError: none came, and why.
        """
        with self._mapped("asking ClickHouse for a sign of life"):
            self._connected().command("SELECT 1")

    def query(
        self, sql: str, parameters: Mapping[str, object] | None = None
    ) -> list[tuple[Any, ...]]:
        """Run a reading statement; its rows.

        Args:
            sql: with `{name:Type}` where a parameter belongs.
            parameters: values by name; bound by the server, never put into the text.

        Raises:
            ClickHouseUnavailableError: after READ_ATTEMPTS_MAX attempts.
            ClickHouseRefusedError: wrong SQL.
            ClickHouseFatalError: as its message says.
        """
        for attempt in self._attempts():
            with attempt, self._mapped("querying ClickHouse"):
                answer = self._connected().query(sql, parameters=dict(parameters or {}))
                return list(answer.result_rows)
        raise AssertionError  # stamina gives the result or raises

    def stream(
        self, sql: str, parameters: Mapping[str, object] | None, format_name: str
    ) -> Iterator[bytes]:
        """Run a reading statement once; its result in a format of ClickHouse, piece by piece.

        Args:
            sql: with `{name:Type}` where a parameter belongs, without FORMAT.
            parameters: values by name.
            format_name: CSV, JSONEachRow, ...: a format whose rows simply follow each other.

        Raises:
            ClickHouseError: as of `query`; also after pieces were given, which are then no whole.
        """
        with self._mapped("streaming from ClickHouse"):
            answer = self._connected().raw_stream(
                sql, parameters=dict(parameters or {}), fmt=format_name
            )
            try:
                # A server that fails after the head of its answer says so in the body.
                tag = answer.headers.get("X-ClickHouse-Exception-Tag", "")
                mark = f"__exception__\r\n{tag}".encode()
                tail = b""
                while piece := answer.read(STREAM_BYTES):
                    if tag and mark in tail + piece:
                        _, _, text = (tail + piece).partition(mark)
                        message = " ".join(text.decode(errors="replace").split())
                        raise driver.DatabaseError(message[:ERROR_TEXT_LENGTH_MAX])
                    tail = piece[-len(mark) :]
                    yield piece
            finally:
                answer.close()

    def blocks(
        self, sql: str, parameters: Mapping[str, object] | None = None
    ) -> Iterator[Sequence[Sequence[Any]]]:
        """Run a reading statement once; its result as columns, block by block.

        Raises:
            ClickHouseError: as of `stream`.
        """
        with (
            self._mapped("streaming from ClickHouse"),
            self._connected().query_column_block_stream(
                sql, parameters=dict(parameters or {})
            ) as stream,
        ):
            yield from stream

    def command(self, sql: str, parameters: Mapping[str, object] | None = None) -> None:
        """Run a statement that changes something, once; errors as of `query`."""
        with self._mapped("running a statement in ClickHouse"):
            self._connected().command(sql, parameters=dict(parameters or {}))

    def insert(
        self,
        table: str,
        columns: Sequence[InsertColumn],
        data: Sequence[Sequence[Any]],
        dedup_token: str = "",
    ) -> None:
        """Insert one block, once; when it returns, the rows are in the table.

        Args:
            table: its name.
            columns: names and types; others get their defaults.
            data: one sequence per column, all of one length. Numbers in an array of their size are
                sent as they are; the sizes must agree.
            dedup_token: the same token within the table's deduplication window inserts nothing
                again; so it has to name the content.

        Raises:
            ClickHouseUnavailableError: not inserted, or the answer was lost: insert the same again.
            ClickHouseRefusedError: some row is not storable.
            ClickHouseFatalError: as its message says.
        """
        settings = {**INSERT_SETTINGS}
        if dedup_token:
            settings["insert_deduplication_token"] = dedup_token
        with self._mapped(f"inserting into {table}"):
            self._connected().insert(
                table,
                data,
                column_names=[column.name for column in columns],
                column_types=[column_type(column.type) for column in columns],
                column_oriented=True,
                settings=settings,
            )

    def close(self) -> None:
        """Let the connection go; a later statement opens a new one."""
        opened, self._driver = self._driver, None
        if opened is not None:
            opened.close()

    def _attempts(self) -> Iterator[Any]:
        return iter(
            stamina.retry_context(
                on=ClickHouseUnavailableError,
                attempts=READ_ATTEMPTS_MAX,
                timeout=READ_SECONDS_MAX,
                wait_initial=0.2,
                wait_max=2.0,
            )
        )

    def _connected(self) -> Any:
        if self._driver is None:
            config = self.config
            self._driver = clickhouse_connect.get_client(
                host=config.host,
                port=config.port,
                username=config.user,
                password=config.password,
                database=config.database,
                secure=config.secure,
                settings={**READ_SETTINGS, **config.settings},
                connect_timeout=CONNECT_SECONDS_MAX,
                send_receive_timeout=config.statement_seconds_max,
                # Retrying is done in `query`, where it is bounded and the last error is raised.
                query_retries=0,
                # Sessions forbid concurrent statements and are not used here.
                autogenerate_session_id=False,
                client_name="meterline",
                compress="lz4" if config.compress else False,
                dedicated_pool=True,
            )
        return self._driver

    @contextmanager
    def _mapped(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (
            driver.ClickHouseError,
            driver.StreamCompleteException,
            transport.HTTPError,
            OSError,
            # What the driver's serializers raise for values that do not fit their column.
            ValueError,
            TypeError,
            AttributeError,
            ArithmeticError,
            LookupError,
            struct.error,
        ) as error:
            found = client_error(error, doing, self.config)
            if isinstance(found, ClickHouseUnavailableError):
                # A broken connection must not be found again by the next attempt.
                self._drop()
            raise found from error

    def _drop(self) -> None:
        try:
            self.close()
        except (driver.ClickHouseError, transport.HTTPError, OSError):
            self._driver = None

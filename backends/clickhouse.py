"""The one door to clickhouse-connect: ClickHouse over HTTP.

    ClickHouseError
    ├── Unavailable   try again later: away, overloaded, read-only replica, out of space
    ├── Refused       these rows or this SQL will never be accepted: dead-letter or correct them
    └── Stop          no retry helps: access, a missing table or column; the message says what to do

Columns whose type is a Decimal take and give integers of their last place: nano-dollars for
Decimal(18, 9). DateTime64 columns take integers of their last place as well. No float, no rounding
and no conversion by the driver touches money.
"""

from __future__ import annotations

import re
import struct
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

import clickhouse_connect
import stamina
from clickhouse_connect.datatypes.base import ClickHouseType
from clickhouse_connect.datatypes.numeric import Bool, Int32, Int64, Int128, UInt16, UInt64
from clickhouse_connect.datatypes.registry import get_from_name
from clickhouse_connect.datatypes.string import String
from clickhouse_connect.datatypes.temporal import DateTime64
from clickhouse_connect.driver import exceptions as driver
from clickhouse_connect.driver.insert import InsertContext
from typing_extensions import override
from urllib3 import exceptions as transport

from meterline.schemas.errors import MeterlineError

# A live server answers a connect within milliseconds, across continents within 0.3 s.
CONNECT_SECONDS_MAX = 5
# The largest report takes seconds; a statement that takes longer is given up, and the server told.
STATEMENT_SECONDS_MAX = 120
# Reads are tried this often before the caller hears Unavailable: bridges a restart of the embedded
# server (about 2 s), and a person at a terminal does not wait longer for a hopeless one.
READ_ATTEMPTS_MAX = 4
READ_SECONDS_MAX = 10.0
# A line in a log or on a terminal; the server sometimes quotes whole rows.
ERROR_TEXT_LENGTH_MAX = 400
# One read of a streamed answer: large enough to make the loop free, small beside any memory.
STREAM_BYTES = 1024 * 1024
# Events since 2020 by month: the server's default of 100 partitions would end in 2028.
PARTITIONS_PER_INSERT_MAX = 1_000
# All rows of one sorting key lie in one partition, in every table of ours (a test says so). The
# server cannot know: without this a read with FINAL of one month reads all months, and merges what
# is merged already. Over three months: 3.5 s instead of 12.5 s.
READ_SETTINGS: Mapping[str, str] = MappingProxyType(
    {"do_not_merge_across_partitions_select_final": "1"}
)

# ClickHouse's numbers (src/Common/ErrorCodes.cpp).
UNAVAILABLE_CODES = frozenset(
    {
        3,  # UNEXPECTED_END_OF_FILE: the connection broke inside the request
        23, 24, 74, 75, 76, 87, 88,  # reading and writing streams and files
        95, 96, 99, 100, 101, 102,  # between servers: unknown or unexpected packets
        159,  # TIMEOUT_EXCEEDED
        160,  # TOO_SLOW
        173, 241,  # memory
        198,  # DNS_ERROR
        201,  # QUOTA_EXCEEDED
        202, 203, 204,  # too many queries, no free connection
        209, 210,  # socket, network
        225, 242, 244, 999,  # Keeper away, table read-only for now
        236, 394, 735,  # aborted, cancelled: the server is stopping
        243,  # NOT_ENOUGH_SPACE
        252,  # TOO_MANY_PARTS: merges lag behind
        279, 280, 285, 286, 289, 319, 519,  # replicas, quorum
        415, 416, 425, 439,  # no threads
        473,  # DEADLOCK_AVOIDED
        499,  # S3_ERROR
        667,  # NOT_INITIALIZED: still starting
        722, 745,  # still loading tables, overloaded
    }
)  # fmt: skip
_ACCESS_HELP = "check user, password and grants in the ClickHouse settings"
_SCHEMA_HELP = "run `meterline migrate`, and check the database name"
_VERSION_HELP = "this ClickHouse version lacks something Meterline needs; 25.8 or newer is meant"
_CLUSTER_HELP = "check the cluster's name in the ClickHouse settings"
STOP_CODES: Mapping[int, str] = MappingProxyType(
    {
        **dict.fromkeys((164, 192, 193, 194, 195, 291, 495, 497, 516), _ACCESS_HELP),
        **dict.fromkeys((8, 10, 16, 47, 60, 81, 82), _SCHEMA_HELP),
        **dict.fromkeys((46, 48, 50, 56, 63, 73, 115, 344), _VERSION_HELP),
        **dict.fromkeys((170, 189, 701), _CLUSTER_HELP),
    }
)
# Unavailable where only the HTTP status is known: the server or a proxy before it is busy.
_BUSY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_STATUS = re.compile(r"HTTP driver received HTTP status (\d{3})")
_VERSION_TRAILER = re.compile(r"\s*\(version [^()]*(?:\([^()]*\))?\)")

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


class ClickHouseError(MeterlineError):
    """Anything that goes wrong at this door; the message is one line, without secrets.

    `code` is ClickHouse's error code, 0 where there is none.
    """

    def __init__(self, message: str, code: int = 0) -> None:
        """Keep the code for callers that tell cases apart."""
        self.code = code
        super().__init__(message)


class ClickHouseUnavailableError(ClickHouseError):
    """Try again later."""


class ClickHouseRefusedError(ClickHouseError):
    """The same rows or the same SQL will be refused again."""


class ClickHouseFatalError(ClickHouseError):
    """Stop; the message says what a person has to do."""


@dataclass(frozen=True, slots=True)
class ClickHouseConfig:
    """Which server, as whom."""

    host: str = "127.0.0.1"
    port: int = 8123
    database: str = "default"
    user: str = "default"
    password: str = field(default="", repr=False)
    secure: bool = False
    """HTTPS, with the certificate checked."""
    statement_seconds_max: int = STATEMENT_SECONDS_MAX
    compress: bool = False
    """LZ4 on the wire: worth it across a network, a waste on one machine."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """More ClickHouse settings for every statement, such as insert_quorum on a cluster."""

    @property
    def address(self) -> str:
        """What messages call the server."""
        return f"{'https' if self.secure else 'http'}://{self.host}:{self.port}"


class InsertColumn(NamedTuple):
    """Name and ClickHouse type of a column to insert into."""

    name: str
    type: str


class _Packed(ClickHouseType, registered=False):
    """A number that may also be given as an array, which holds its bytes already."""

    @override
    def _write_column_binary(
        self, column: Sequence[Any], dest: bytearray, ctx: InsertContext
    ) -> None:
        if not isinstance(column, array):
            super()._write_column_binary(column, dest, ctx)
            return
        if column.itemsize != self.byte_size:
            message = f"column {ctx.column_name}: {column.itemsize} bytes for a {self.base_type}"
            raise ValueError(message)
        if sys.byteorder == "big":
            column = array(column.typecode, column)
            column.byteswap()
        dest += memoryview(column).cast("B")


class _PackedBool(_Packed, Bool, registered=False):
    """Bool; in an array 0 and 1."""


class _PackedInt32(_Packed, Int32, registered=False):
    """Int32."""


class _PackedInt64(_Packed, Int64, registered=False):
    """Int64."""


class _PackedUInt16(_Packed, UInt16, registered=False):
    """UInt16."""


class _PackedUInt64(_Packed, UInt64, registered=False):
    """UInt64."""


class _PackedTime(_Packed, DateTime64, registered=False):
    """DateTime64; in an array integers of its last place."""


_PACKED: Mapping[type[ClickHouseType], type[_Packed]] = {
    Bool: _PackedBool,
    Int32: _PackedInt32,
    Int64: _PackedInt64,
    UInt16: _PackedUInt16,
    UInt64: _PackedUInt64,
    DateTime64: _PackedTime,
}


class _Units64(_Packed, Int64, registered=False):
    """A Decimal of up to 18 digits, given as the integer that ClickHouse stores."""

    declared = ""

    @property
    @override
    def insert_name(self) -> str:
        return self.declared


class _Units128(Int128, registered=False):
    """A Decimal of up to 38 digits, given as the integer that ClickHouse stores."""

    declared = ""

    @property
    @override
    def insert_name(self) -> str:
        return self.declared


class _Labels(String, registered=False):
    """LowCardinality(String) whose dictionary is made without a loop: a third of the time."""

    @property
    @override
    def insert_name(self) -> str:
        return _LABELS

    @override
    def _build_lc_dictionary(
        self, column: Sequence[Any], _ctx: InsertContext
    ) -> tuple[list[Any], list[int]]:
        numbers = {text: number for number, text in enumerate(dict.fromkeys(column))}
        return list(numbers), list(map(numbers.__getitem__, column))


_LABELS = "LowCardinality(String)"
_DECIMAL = re.compile(r"^(Nullable\()?Decimal\((\d+), (\d+)\)(\))?$")
_DIGITS_64 = 18


# As many as there are types in schemas.tables, several times over.
@lru_cache(maxsize=256)
def _column_type(name: str) -> ClickHouseType:
    if name == _LABELS:
        return _Labels(get_from_name(name).type_def)
    decimal = _DECIMAL.match(name)
    if decimal is None:
        plain = get_from_name(name)
        packed = _PACKED.get(type(plain))
        return plain if packed is None else packed(plain.type_def)
    whole = "Int64" if int(decimal[2]) <= _DIGITS_64 else "Int128"
    plain = get_from_name(f"Nullable({whole})" if decimal[1] else whole)
    kind = _Units64 if whole == "Int64" else _Units128
    units = kind(plain.type_def)
    units.declared = name
    return units


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
                column_types=[_column_type(column.type) for column in columns],
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
                # Retrying is this door's business, where it is bounded and told.
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
            found = door_error(error, doing, self.config)
            if isinstance(found, ClickHouseUnavailableError):
                # A broken connection must not be found again by the next attempt.
                self._drop()
            raise found from error

    def _drop(self) -> None:
        try:
            self.close()
        except (driver.ClickHouseError, transport.HTTPError, OSError):
            self._driver = None


def door_error(error: BaseException, doing: str, config: ClickHouseConfig) -> ClickHouseError:
    """Map one error of the driver; the caller raises it `from` the original.

    Args:
        error: what the driver raised.
        doing: what was attempted, for the message.
        config: names the server; its password is cut out of the text.
    """
    code = int(getattr(error, "code", None) or 0)
    if code in STOP_CODES:
        return ClickHouseFatalError(f"{doing}: {_text(error, config)}; {STOP_CODES[code]}", code)
    if code in UNAVAILABLE_CODES:
        return ClickHouseUnavailableError(f"{doing}: {_text(error, config)}", code)
    if code:
        return ClickHouseRefusedError(f"{doing}: {_text(error, config)}", code)
    return _without_code(error, doing, config)


def _without_code(error: BaseException, doing: str, config: ClickHouseConfig) -> ClickHouseError:
    status = _STATUS.search(str(error))
    if status is not None and int(status[1]) not in _BUSY_STATUSES:
        what = f"{doing}: {config.address} answers HTTP {status[1]}"
        return ClickHouseFatalError(f"{what}; check host and port, this may be no ClickHouse")
    if isinstance(
        error,
        driver.OperationalError
        | driver.InternalError
        | driver.StreamClosedError
        | driver.StreamCompleteException
        | transport.HTTPError
        | OSError,
    ):
        what = f"{doing}: no answer from ClickHouse at {config.address}"
        advice = "start it, or correct host and port"
        return ClickHouseUnavailableError(f"{what} ({_cause(error)}); {advice}")
    if status is not None:
        return ClickHouseUnavailableError(f"{doing}: {config.address} answers HTTP {status[1]}")
    if isinstance(error, driver.NotSupportedError):
        return ClickHouseFatalError(f"{doing}: {_text(error, config)}; {_VERSION_HELP}")
    return ClickHouseRefusedError(f"{doing}: {_text(error, config)}")


def _text(error: BaseException, config: ClickHouseConfig) -> str:
    text = " ".join(str(error).split())
    text = _VERSION_TRAILER.sub("", text).replace(f" (for url {config.address})", "")
    if config.password:
        text = text.replace(config.password, "***")
    return text[:ERROR_TEXT_LENGTH_MAX] or type(error).__name__


def _cause(error: BaseException) -> str:
    """The innermost reason: the outer texts repeat the address and object names."""
    inner = error
    while (deeper := inner.__cause__ or inner.__context__) is not None:
        inner = deeper
    return type(inner).__name__ if inner is not error else type(error).__name__

"""The client of chDB: the ClickHouse engine inside this process.

Measured with chDB 26.9: connections are independent (current database, settings), cheap (0.3 ms)
and may run at the same time from several threads; the interpreter lock is released while the
engine works. So every request gets its own connection, and nothing leaks from one to another.
"""

import re
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import chdb

from meterline.embedded.errors import EmbeddedError

_SETTING_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_ERROR_CODE = re.compile(r"Code: (\d+)\. DB::Exception")
# ClickHouse's own numbers, for errors that are found before the engine is asked.
CODE_BAD_ARGUMENTS = 36
CODE_UNKNOWN_EXCEPTION = 1002
CODE_UNKNOWN_SETTING = 115

# Formats whose blocks may simply follow each other; all others have a head or a foot around the
# whole result, so the engine has to write them in one piece.
STREAMABLE_FORMATS = frozenset(
    {"Native", "RowBinary", "TabSeparated", "TSV", "CSV", "JSONEachRow", "JSONCompactEachRow"}
)

# chDB's classes are typed in part only: in this client they are Any.
_connect: Callable[[str], Any] = chdb.connect


class EngineError(EmbeddedError):
    """The engine refused or failed; carries ClickHouse's error code and its text."""

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        self.text = text
        super().__init__(text)

    @classmethod
    def of(cls, error: BaseException) -> "EngineError":
        """Read chDB's error: text with ClickHouse's `Code: N.` in it."""
        text = str(error)
        found = _ERROR_CODE.search(text)
        if found is None:
            return cls(
                CODE_UNKNOWN_EXCEPTION, f"Code: {CODE_UNKNOWN_EXCEPTION}. DB::Exception: {text}"
            )
        return cls(int(found[1]), text[found.start() :])


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What a request sets before its statement runs."""

    database: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    read_only: bool = False
    """Only reading statements; settings may be given (ClickHouse's readonly=2)."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of ClickHouse's X-ClickHouse-Summary header."""

    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    elapsed_ns: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """A whole result in its output format."""

    body: bytes
    summary: Summary


@dataclass(frozen=True, slots=True)
class InsertRows:
    """The parts of `INSERT INTO ... SETTINGS ... FORMAT ...` around its data."""

    into: str
    settings: str
    format_name: str


def quote(text: str) -> str:
    """`text` as a SQL string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quote_name(name: str) -> str:
    """`name` as a SQL identifier."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


class Session:
    """One request's connection; closed with the request."""

    def __init__(self, path: str, wanted: SessionSettings) -> None:
        self._connection = _connect(path)
        try:
            self._prepare(wanted)
        except BaseException:
            self.close()
            raise

    def _prepare(self, wanted: SessionSettings) -> None:
        # SQL is built here because SET and USE take no parameters: names are checked, values quoted.
        for name in wanted.settings:
            if _SETTING_NAME.match(name) is None:
                text = f"Code: {CODE_UNKNOWN_SETTING}. DB::Exception: Unknown setting {name!r}"
                raise EngineError(CODE_UNKNOWN_SETTING, text)
        assignments = [f"{name} = {quote(value)}" for name, value in wanted.settings.items()]
        if wanted.read_only:
            assignments.append("readonly = 2")
        if wanted.database:
            self._run(f"USE {quote_name(wanted.database)}")
        if assignments:
            self._run("SET " + ", ".join(assignments))

    def _run(self, sql: str) -> None:
        try:
            self._connection.query(sql, "TabSeparated")
        except Exception as error:
            raise EngineError.of(error) from error

    def query(self, sql: str, format_name: str, parameters: dict[str, str]) -> Result:
        """Run a statement to its end and give its whole result."""
        try:
            result = self._connection.query(sql, format_name, params=parameters)
            return Result(result.bytes(), summary_of(result))
        except Exception as error:
            raise EngineError.of(error) from error

    def stream(self, sql: str, format_name: str, parameters: dict[str, str]) -> Generator[bytes]:
        """Run a reading statement; its result block by block, in a streamable format."""
        try:
            stream = self._connection.send_query(sql, format_name, params=parameters)
        except Exception as error:
            raise EngineError.of(error) from error
        try:
            for block in stream:
                yield block.bytes()
        except Exception as error:
            raise EngineError.of(error) from error
        finally:
            stream.close()

    def insert(self, rows: "InsertRows", path: str, parameters: dict[str, str]) -> Summary:
        """Insert the rows of the file at `path`; when it returns, they are in the table.

        chDB's streaming `send_insert` must not be used (chDB 26.9): it reports success when the
        write itself fails (disk full, too many parts, a violated constraint), and the rows are
        nowhere. Data after the statement in one string is no way either: it is cut.
        """
        sql = (
            f"{rows.into} FROM INFILE {quote(path)} COMPRESSION 'none' "
            f"{rows.settings} FORMAT {rows.format_name}"
        )
        return self.query(sql, "TabSeparated", parameters).summary

    def close(self) -> None:
        """Give the connection back to the engine."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def summary_of(result: Any) -> Summary:
    """The figures that chDB keeps with a result."""
    return Summary(
        read_rows=result.storage_rows_read(),
        read_bytes=result.storage_bytes_read(),
        written_rows=result.rows_written(),
        written_bytes=result.bytes_written(),
        elapsed_ns=int(result.elapsed() * 1e9),
    )


class Engine:
    """The engine on one data directory; it lives as long as this object."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        # The engine ends with its last connection: this one keeps it (and its caches) alive.
        self._keeper = _connect(self._path)
        self._lock = threading.Lock()
        self._open = True

    def session(self, wanted: SessionSettings) -> Session:
        """A new connection with the request's database and settings; EngineError if refused."""
        return Session(self._path, wanted)

    def version(self) -> str:
        """The engine's version, four numbers."""
        with self.session(SessionSettings()) as session:
            return session.query("SELECT version()", "TabSeparated", {}).body.decode().strip()

    def timezone(self) -> str:
        """The engine's time zone name."""
        with self.session(SessionSettings()) as session:
            return session.query("SELECT timezone()", "TabSeparated", {}).body.decode().strip()

    def close(self) -> None:
        """Stop merges and write what the engine keeps in memory; may be called twice."""
        with self._lock:
            if self._open:
                self._open = False
                self._keeper.close()

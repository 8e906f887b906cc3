"""ClickHouse's HTTP protocol in front of the engine.

What clients of a real server use: statements in the URL or the body, bound parameters, settings,
compressed and chunked bodies, formats, errors with ClickHouse's codes. Not served: users and
passwords (it listens on 127.0.0.1 only), sessions across requests, external tables, compressed
answers (on one machine they cost more than they save).
"""

import asyncio
import json
import secrets
import uuid
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from aiohttp import web

from meterline.embedded.core.statements import Statement, StatementKind, parse_statement
from meterline.embedded.decoding import BrokenBodyError, Decoder, UnknownEncodingError
from meterline.embedded.engine import (
    STREAMABLE_FORMATS,
    Engine,
    EngineError,
    InsertRows,
    Session,
    SessionSettings,
    Summary,
)
from meterline.embedded.insert_buffer import InsertBuffer

P = ParamSpec("P")
T = TypeVar("T")

# Statements that run at once: enough for every worker of one machine, and the engine itself
# spreads a statement over the cores.
THREADS = 8
# Running and waiting statements; one more is refused with 503, which clients retry.
STATEMENTS_MAX = 64
# Body bytes given to the engine at once: large enough to make a thread hop free.
BATCH_BYTES = 1024 * 1024
# A statement's text, its VALUES included; rows in a format are not limited, they are streamed.
TEXT_BYTES_MAX = 64 * 1024 * 1024
# As ClickHouse's http_max_uri_size: the URL may hold a long SELECT.
URL_BYTES_MAX = 1024 * 1024
DEFAULT_FORMAT = "TabSeparated"

CODE_CANNOT_READ_ALL_DATA = 33
CODE_NOT_IMPLEMENTED = 48
CODE_SYNTAX_ERROR = 62
CODE_UNKNOWN_COMPRESSION = 89
CODE_TOO_MANY_STATEMENTS = 202
CODE_NOT_ENOUGH_SPACE = 243
# How ClickHouse maps its codes to HTTP (exceptionCodeToHTTPStatus); any other is 500.
_STATUS_OF_CODE = {
    **dict.fromkeys((6, 26, 27, 36, 38, 41, 53, 62, 69, 70, 72, 117, 386, 457), 400),
    **dict.fromkeys((46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 120, 336, 511), 404),
    159: 408,
    48: 501,
    202: 503,
    439: 503,
}
# URL parameters that are no settings of the engine.
_NOT_SETTINGS = frozenset(
    {
        "buffer_size",
        "client_protocol_version",
        "compress",
        "database",
        "decompress",
        "default_format",
        "enable_http_compression",
        "password",
        "query",
        "query_id",
        "quota_key",
        "role",
        "session_check",
        "session_id",
        "session_timeout",
        "stacktrace",
        "user",
        "wait_end_of_query",
    }
)
_PARAMETER_PREFIX = "param_"
_CONTENT_TYPES = {
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "TSV": "text/tab-separated-values; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8",
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
}
_LOCAL_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})


@dataclass(frozen=True, slots=True)
class Call:
    """What a request says beside its statement."""

    text: str
    """Statement text from the URL or the form; the body's text follows it."""
    session: SessionSettings
    parameters: dict[str, str]
    default_format: str
    query_id: str
    wait_end: bool
    """The whole result before the first byte, so that every error has its own status."""


def read_call(request: web.Request, form: dict[str, str], query_id: str) -> Call:
    """Gather the request's words from URL, form fields and headers."""
    fields = {**request.query, **form}
    settings = {
        name: value
        for name, value in fields.items()
        if name not in _NOT_SETTINGS and not name.startswith(_PARAMETER_PREFIX)
    }
    headers = request.headers
    return Call(
        text=fields.get("query", ""),
        session=SessionSettings(
            database=fields.get("database", "") or headers.get("X-ClickHouse-Database", ""),
            settings=settings,
            # As ClickHouse: following a link must not change anything.
            read_only=request.method == "GET",
        ),
        parameters={
            name.removeprefix(_PARAMETER_PREFIX): value
            for name, value in fields.items()
            if name.startswith(_PARAMETER_PREFIX)
        },
        default_format=fields.get("default_format", "")
        or headers.get("X-ClickHouse-Format", DEFAULT_FORMAT),
        query_id=query_id,
        wait_end=fields.get("wait_end_of_query", "0") in ("1", "true"),
    )


class Body:
    """A request's body, decompressed, in batches."""

    def __init__(self, request: web.Request) -> None:
        self._content = request.content
        self._decoder = Decoder(request.headers.get("Content-Encoding", ""))
        self._ended = False

    def ended(self) -> bool:
        """Whether everything was read."""
        return self._ended

    def skip(self) -> None:
        """The body was read already (as a form)."""
        self._ended = True

    async def batch(self) -> bytes:
        """The next BATCH_BYTES or so of the body as they were sent."""
        pieces: list[bytes] = []
        size = 0
        while size < BATCH_BYTES:
            piece = await self._content.readany()
            if not piece:
                self._ended = True
                break
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)

    def decode(self, batch: bytes) -> bytes:
        """The batch decompressed (CPU work: belongs into a thread)."""
        plain = self._decoder.decode(batch)
        if self._ended:
            self._decoder.finish()
        return plain


@dataclass(frozen=True, slots=True)
class BegunStream:
    """A result's beginning, and what gives the rest of it, if there is any."""

    first: bytes
    rest: tuple[Session, Generator[bytes]] | None


class ClickHouseHttp:
    """The request handlers; one instance serves one engine."""

    def __init__(self, engine: Engine, directory: Path) -> None:
        """`directory` takes the rows of inserts too large for memory."""
        self._engine = engine
        self._directory = directory
        self._version = engine.version()
        self._timezone = engine.timezone()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="statement")
        self._statements = 0

    def application(self) -> web.Application:
        """The routes."""
        application = web.Application(client_max_size=TEXT_BYTES_MAX, middlewares=[only_local])
        application.router.add_get("/ping", self._ping)
        application.router.add_get("/replicas_status", self._ping)
        application.router.add_get("/", self._handle)
        application.router.add_post("/", self._handle)
        return application

    def close(self) -> None:
        """Wait for the statements that run."""
        self._threads.shutdown(wait=True)

    async def _ping(self, _request: web.Request) -> web.Response:
        return web.Response(text="Ok.\n")

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.method == "GET" and "query" not in request.query:
            return web.Response(text="Ok.\n")
        query_id = request.query.get("query_id", "") or str(uuid.uuid4())
        if self._statements >= STATEMENTS_MAX:
            text = (
                f"Too many simultaneous queries. Maximum: {STATEMENTS_MAX}. "
                "(TOO_MANY_SIMULTANEOUS_QUERIES)"
            )
            return self._refusal(bad_request(CODE_TOO_MANY_STATEMENTS, text), query_id)
        self._statements += 1
        try:
            call, body = await self._read(request, query_id)
            return await self._run(request, call, body)
        except (EngineError, BrokenBodyError, UnknownEncodingError, UnicodeDecodeError) as error:
            return self._refusal(as_engine_error(error), query_id)
        except (ConnectionError, web.RequestPayloadError):
            # The client is gone or speaks no HTTP: no answer can reach it. Not worth a log line.
            return web.Response(status=400)
        finally:
            self._statements -= 1

    async def _read(self, request: web.Request, query_id: str) -> tuple[Call, Body]:
        body = Body(request)
        if request.content_type != "multipart/form-data":
            return read_call(request, {}, query_id), body
        form: dict[str, str] = {}
        for name, value in (await request.post()).items():
            if not isinstance(value, str):
                raise bad_request(CODE_NOT_IMPLEMENTED, "External tables are not served here")
            form[name] = value
        body.skip()
        return read_call(request, form, query_id), body

    async def _run(self, request: web.Request, call: Call, body: Body) -> web.StreamResponse:
        # 1. The text: what the URL says, then the first of the body.
        batch = b"" if body.ended() else await body.batch()
        source = await self._in_thread(body.decode, batch) if batch else b""
        if call.text:
            source = call.text.encode() + b"\n" + source
        statement = parse_statement(source)
        # 2. An INSERT's rows are the rest of the bytes.
        if statement.kind is StatementKind.INSERT_DATA:
            return await self._insert(call, statement, source[statement.data_offset :], body)
        # 3. Any other statement is text to the end.
        while not body.ended():
            source += await self._in_thread(body.decode, await body.batch())
            if len(source) > TEXT_BYTES_MAX:
                raise bad_request(CODE_SYNTAX_ERROR, f"Statement above {TEXT_BYTES_MAX} bytes")
        if len(source) > len(statement.sql.encode()):
            statement = parse_statement(source)
        return await self._answer(request, call, statement)

    async def _insert(
        self, call: Call, statement: Statement, first: bytes, body: Body
    ) -> web.StreamResponse:
        spool = InsertBuffer(self._directory)
        try:
            # 1. All rows first: a client that leaves before the end leaves none of them.
            if not body.ended():
                await self._in_thread(spool.write, first)
                first = b""
            while not body.ended():
                batch = await body.batch()
                await self._in_thread(lambda data: spool.write(body.decode(data)), batch)
            # 2. Then the table. Only this answer promises anything: the rows are there.
            summary = await self._in_thread(self._insert_spooled, call, statement, spool, first)
        except OSError as error:
            if isinstance(error, ConnectionError):
                raise
            text = f"Cannot keep the rows to insert: {error.strerror} (NOT_ENOUGH_SPACE)"
            raise bad_request(CODE_NOT_ENOUGH_SPACE, text) from error
        finally:
            spool.close()
        return web.Response(headers=self._headers(call, None, summary))

    def _insert_spooled(
        self, call: Call, statement: Statement, spool: InsertBuffer, rest: bytes
    ) -> Summary:
        spool.write(rest)
        rows = InsertRows(
            statement.sql, statement.settings, statement.format_name or DEFAULT_FORMAT
        )
        with self._engine.session(call.session) as session:
            return session.insert(rows, spool.path, call.parameters)

    async def _answer(
        self, request: web.Request, call: Call, statement: Statement
    ) -> web.StreamResponse:
        name = statement.format_name or call.default_format
        result_format = name if statement.kind is StatementKind.RESULT else None
        if result_format in STREAMABLE_FORMATS and not call.wait_end:
            return await self._stream(request, call, statement, result_format)

        def run() -> tuple[bytes, Summary]:
            with self._engine.session(call.session) as session:
                result = session.query(statement.sql, call.default_format, call.parameters)
                return result.body, result.summary

        content, summary = await self._in_thread(run)
        return web.Response(body=content, headers=self._headers(call, result_format, summary))

    async def _stream(
        self, request: web.Request, call: Call, statement: Statement, result_format: str
    ) -> web.StreamResponse:
        begun = await self._in_thread(self._begin_stream, call, statement)
        headers = self._headers(call, result_format, Summary())
        if begun.rest is None:
            return web.Response(body=begun.first, headers=headers)
        session, blocks = begun.rest
        try:
            tag = secrets.token_hex(8)
            headers["X-ClickHouse-Exception-Tag"] = tag
            response = web.StreamResponse(headers=headers)
            response.enable_chunked_encoding()
            await response.prepare(request)
            block = begun.first
            try:
                while block:
                    await response.write(block)
                    block = await self._in_thread(next, blocks, b"")
            except EngineError as error:
                await response.write(late_error(error, tag))
            await response.write_eof()
            return response
        finally:
            # Closing the generator cancels a statement whose client has left.
            await self._in_thread(blocks.close)
            await self._in_thread(session.close)

    def _begin_stream(self, call: Call, statement: Statement) -> BegunStream:
        """The result's first BATCH_BYTES; most results are no longer and need no stream."""
        session = self._engine.session(call.session)
        try:
            blocks = session.stream(statement.sql, call.default_format, call.parameters)
            pieces: list[bytes] = []
            size = 0
            for block in blocks:
                pieces.append(block)
                size += len(block)
                if size >= BATCH_BYTES:
                    return BegunStream(b"".join(pieces), (session, blocks))
        except BaseException:
            session.close()
            raise
        session.close()
        return BegunStream(b"".join(pieces), None)

    async def _in_thread(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(work, *arguments, **named))

    def _headers(self, call: Call, result_format: str | None, summary: Summary) -> dict[str, str]:
        headers = {
            "X-ClickHouse-Server-Display-Name": "meterline-embedded",
            "X-ClickHouse-Query-Id": call.query_id,
            "X-ClickHouse-Timezone": call.session.settings.get("session_timezone", self._timezone),
            # Numbers as strings, as ClickHouse writes them.
            "X-ClickHouse-Summary": json.dumps(
                {
                    "read_rows": str(summary.read_rows),
                    "read_bytes": str(summary.read_bytes),
                    "written_rows": str(summary.written_rows),
                    "written_bytes": str(summary.written_bytes),
                    "elapsed_ns": str(summary.elapsed_ns),
                }
            ),
        }
        if result_format is not None:
            headers["X-ClickHouse-Format"] = result_format
            headers["Content-Type"] = _CONTENT_TYPES.get(result_format, "application/octet-stream")
        return headers

    def _refusal(self, error: EngineError, query_id: str) -> web.Response:
        text = (
            error.text if "(version " in error.text else f"{error.text} (version {self._version})"
        )
        return web.Response(
            status=_STATUS_OF_CODE.get(error.code, 500),
            text=text + "\n",
            headers={
                "X-ClickHouse-Exception-Code": str(error.code),
                "X-ClickHouse-Query-Id": query_id,
            },
        )


def bad_request(code: int, text: str) -> EngineError:
    """An error found before the engine was asked, in the engine's own words."""
    return EngineError(code, f"Code: {code}. DB::Exception: {text}")


def as_engine_error(error: Exception) -> EngineError:
    """Any refusal of a request with one of ClickHouse's codes."""
    if isinstance(error, EngineError):
        return error
    if isinstance(error, UnknownEncodingError):
        return bad_request(CODE_UNKNOWN_COMPRESSION, f"Unknown compression method: {error}")
    return bad_request(CODE_CANNOT_READ_ALL_DATA, str(error))


def late_error(error: EngineError, tag: str) -> bytes:
    """An error after the head of the answer is sent, as ClickHouse 25.11 and later mark it."""
    text = error.text.encode()
    mark = tag.encode()
    return (
        b"\r\n__exception__\r\n" + mark + b"\r\n" + text + b"\n"
        + str(len(text) + 1).encode() + b" " + mark + b"\r\n__exception__\r\n"
    )  # fmt: skip


@web.middleware
async def only_local(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Refuse what a web page could make a browser send here: no password protects the data."""
    host = request.host.rsplit(":", 1)[0] if not request.host.endswith("]") else request.host
    origin = request.headers.get("Origin", "")
    if host not in _LOCAL_NAMES or (origin and origin.split("//", 1)[-1] != request.host):
        return web.Response(status=403, text="only clients of this machine are served\n")
    return await handler(request)

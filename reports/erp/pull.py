"""Pull: the files of closed months over HTTP, for ledgers that fetch.

    GET /v1/exports                              months and their newest revision
    GET /v1/exports/2026-10                      the manifest of the newest revision
    GET /v1/exports/2026-10/acme/bill.json       a file; also /v1/exports/2026-10/r1/acme/...

Every answer has an ETag (its SHA-256, so If-None-Match saves the transfer) and a Content-Digest
(RFC 9530). All of it needs the bearer token. Nothing but files that a manifest names is served.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import re
from pathlib import Path

import msgspec
from aiohttp import web

from meterline.backends.loop_thread import LoopThread
from meterline.reports.booking.core.inputs import MANIFEST, digest

START_SECONDS_MAX = 10.0
"""Binding a port takes milliseconds."""
PIECE_BYTES = 256 * 1024
"""Held per download."""
_PERIOD = re.compile(r"20\d\d-(0[1-9]|1[0-2])")
_REVISION = re.compile(r"r([1-9]\d{0,5})")
_TYPES = {
    ".json": "application/json",
    ".csv": "text/csv; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}


class ExportFiles:
    """The files to fetch; a request's path only selects from manifests."""

    def __init__(self, root: Path) -> None:
        """Take the directory of all closed months."""
        self._root = root

    def periods(self) -> list[dict[str, object]]:
        """Months with their newest revision, in order."""
        found: list[dict[str, object]] = []
        for folder in sorted(self._root.glob("20*")):
            newest = self._newest(folder.name)
            if newest is not None:
                found.append({"period": folder.name, "revision": newest})
        return found

    def find(self, period: str, tail: str) -> tuple[Path, str] | None:
        """The file that `tail` selects and its SHA-256; None for anything else.

        `tail` is empty for the manifest, else a path of the manifest, both maybe after `r1/`.
        """
        head, _, rest = tail.partition("/")
        named = _REVISION.fullmatch(head)
        revision = int(named[1]) if named else self._newest(period)
        if not _PERIOD.fullmatch(period) or revision is None:
            return None
        folder = self._root / period / f"r{revision}"
        try:
            content = (folder / MANIFEST).read_bytes()
        except OSError:
            return None
        wanted = rest if named else tail
        if wanted in {"", MANIFEST}:
            return folder / MANIFEST, digest(content)
        for each in msgspec.json.decode(content)["files"]:
            if each["path"] == wanted:
                return folder / each["path"], each["sha256"]
        return None

    def _newest(self, period: str) -> int | None:
        if not _PERIOD.fullmatch(period):
            return None
        numbers = [
            int(found[1])
            for each in (self._root / period).glob(f"r*/{MANIFEST}")
            if (found := _REVISION.fullmatch(each.parent.name))
        ]
        return max(numbers, default=None)


class ExportServer:
    """Serves from a thread of its own, beside the scheduler."""

    def __init__(self, root: Path, token: str, host: str, port: int) -> None:
        """Nothing is bound before `start`; port 0 picks a free one.

        Raises:
            ValueError: the token is empty.
        """
        if not token:
            message = "exports are served with a bearer token only"
            raise ValueError(message)
        self.port = port
        self._host = host
        self._token = token.encode()
        self._files = ExportFiles(root)
        self._thread: LoopThread | None = None
        self._runner: web.AppRunner | None = None

    def start(self) -> None:
        """Bind and serve; OSError if the port is taken."""
        self._thread = LoopThread("exports")
        self._thread.start(self._bind()).result(START_SECONDS_MAX)

    def stop(self) -> None:
        """Release the port."""
        if self._thread is not None:
            self._thread.close(self._runner.cleanup if self._runner is not None else None)

    async def _bind(self) -> None:
        application = web.Application()
        application.router.add_get("/v1/exports", self._list)
        application.router.add_get("/v1/exports/{period}", self._get)
        application.router.add_get("/v1/exports/{period}/{tail:.*}", self._get)
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _list(self, request: web.Request) -> web.StreamResponse:
        self._authorise(request)
        body = msgspec.json.encode({"periods": await asyncio.to_thread(self._files.periods)})
        return self._answer(request, digest(body), body)

    async def _get(self, request: web.Request) -> web.StreamResponse:
        self._authorise(request)
        info = request.match_info
        found = await asyncio.to_thread(self._files.find, info["period"], info.get("tail", ""))
        if found is None:
            raise web.HTTPNotFound(text="no such export\n")
        path, sha256 = found
        if self._unchanged(request, sha256):
            return web.Response(status=304, headers=_headers(sha256))
        kind = _TYPES.get(path.suffix, "application/octet-stream")
        headers = {**_headers(sha256), "Content-Type": kind}
        return await _stream(request, path, headers)

    def _answer(self, request: web.Request, sha256: str, body: bytes) -> web.Response:
        if self._unchanged(request, sha256):
            return web.Response(status=304, headers=_headers(sha256))
        headers = {**_headers(sha256), "Content-Type": _TYPES[".json"]}
        return web.Response(body=body, headers=headers)

    def _unchanged(self, request: web.Request, sha256: str) -> bool:
        return any(tag.value in {sha256, "*"} for tag in request.if_none_match or ())

    def _authorise(self, request: web.Request) -> None:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode(), self._token):
            raise web.HTTPUnauthorized(
                headers={"WWW-Authenticate": "Bearer"}, text="a bearer token is needed\n"
            )


async def _stream(request: web.Request, path: Path, headers: dict[str, str]) -> web.StreamResponse:
    """Piece by piece: a FOCUS file of a large month does not fit into memory.

    aiohttp's own FileResponse makes its ETag of time and size, where content is promised.
    """
    response = web.StreamResponse(headers=headers)
    with await asyncio.to_thread(path.open, "rb") as file:
        response.content_length = (await asyncio.to_thread(path.stat)).st_size
        await response.prepare(request)
        while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
            await response.write(piece)
    await response.write_eof()
    return response


def _headers(sha256: str) -> dict[str, str]:
    encoded = base64.b64encode(bytes.fromhex(sha256)).decode()
    return {
        "ETag": f'"{sha256}"',
        "Content-Digest": f"sha-256=:{encoded}:",
        "Cache-Control": "private, no-cache",
    }

"""The embedded ClickHouse: chDB on disk, served over ClickHouse's HTTP protocol.

    python -m meterline.embedded.clickhouse --data DIR --port N

SIGTERM or SIGINT: no new connections, the running statements end, the engine closes.
An INSERT that was answered survives SIGKILL of the process (its part is renamed into place before
the answer); as in ClickHouse by default it is not fsynced, so a power cut may lose the last ones.
"""

import argparse
import asyncio
import signal
import sys
import urllib.error
import urllib.request
from pathlib import Path

from meterline.embedded.directories import own_directory
from meterline.embedded.errors import DataDirectoryError, EmbeddedError, PortBusyError, exit_with
from meterline.embedded.processes import LOCALHOST, ServerProcess, free_port, start_server

# The engine loads in about 0.5 s; a large store takes longer to open its tables.
READY_TIMEOUT_SECONDS = 60.0
PING_TIMEOUT_SECONDS = 1.0
# How long running statements may go on after SIGTERM; below the supervisor's grace.
DRAIN_SECONDS = 8.0


def answers_ping(port: int) -> bool:
    """Whether a ClickHouse on 127.0.0.1:`port` answers /ping."""
    url = f"http://{LOCALHOST}:{port}/ping"
    try:
        with urllib.request.urlopen(url, timeout=PING_TIMEOUT_SECONDS) as answer:
            return bool(answer.read() == b"Ok.\n")
    except OSError:
        return False


def start_clickhouse(data_dir: Path, port: int = 0) -> ServerProcess:
    """Start the server on `data_dir` (port 0: a free one) and wait until it answers."""
    chosen = port or free_port()
    return start_server(
        "clickhouse",
        chosen,
        (sys.executable, "-m", __name__, "--data", str(data_dir), "--port", str(chosen)),
        ready=lambda: answers_ping(chosen),
        ready_timeout_seconds=READY_TIMEOUT_SECONDS,
    )


async def _serve(data_dir: Path, port: int) -> None:
    # Here and not above: a parent that only starts the server need not load the engine.
    from aiohttp import web  # noqa: PLC0415

    from meterline.embedded.clickhouse_http import URL_BYTES_MAX, ClickHouseHttp  # noqa: PLC0415
    from meterline.embedded.engine import Engine, EngineError  # noqa: PLC0415

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        engine = Engine(data_dir)
    except EngineError as error:
        message = f"the engine cannot open {data_dir} ({error}): choose another data directory"
        raise DataDirectoryError(message) from error
    server = ClickHouseHttp(engine, data_dir)
    runner = web.AppRunner(
        server.application(),
        access_log=None,
        auto_decompress=False,
        max_line_size=URL_BYTES_MAX,
        shutdown_timeout=DRAIN_SECONDS,
    )
    try:
        await runner.setup()
        try:
            await web.TCPSite(runner, LOCALHOST, port).start()
        except OSError as error:
            raise PortBusyError(port) from error
        sys.stderr.write(f"clickhouse: ready on http://{LOCALHOST}:{port}, data in {data_dir}\n")
        sys.stderr.flush()
        await stop.wait()
    finally:
        await runner.cleanup()
        server.close()
        engine.close()


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="python -m meterline.embedded.clickhouse", description=__doc__
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    try:
        directory = own_directory(arguments.data)
        asyncio.run(_serve(directory.path, arguments.port))
    except EmbeddedError as error:
        exit_with("clickhouse", error)


if __name__ == "__main__":
    main()

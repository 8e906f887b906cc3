"""The streams worker's process: starts the Faust app, drains and stops it on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
from typing import Any, NoReturn

import structlog
import uvloop
from aiokafka.errors import KafkaConnectionError  # type: ignore[import-untyped]

from meterline.app.clock import now_ms
from meterline.app.settings import Settings
from meterline.app.wiring import catalogue, streams_settings
from meterline.schemas.clock import Clock
from meterline.schemas.metrics import Meter
from meterline.streams.agents import Streams, build_streams
from meterline.streams.core.ledger import Rate
from meterline.streams.flusher import FAILED_STATUS, RecordWriter, end_process
from meterline.streams.settings import StreamsSettings
from meterline.streams.transport import SpendProducer

log = structlog.get_logger()

# The table holds some 100,000 objects that live long: traversing all of them at every 700 new ones
# (the default) would take a tenth of the time.
GC_THRESHOLDS = (50_000, 20, 50)


def start(settings: Settings, meter: Meter) -> int:
    """Fold usage into spend until SIGTERM."""
    return run_streams(streams_settings(settings), catalogue(settings).price, now_ms, meter)


def run_streams(settings: StreamsSettings, rate: Rate, clock: Clock, meter: Meter) -> int:
    """Run a streams worker until SIGTERM or SIGINT; blocks.

    Args:
        settings: brokers, limits and intervals.
        rate: prices an event: (cost in nano-USD, whether a price was found).
        clock: now, in UTC milliseconds.
        meter: receives the metrics.

    Returns:
        0 after a clean drain. A failure does not return: the process ends with a status that
        makes a supervisor start it again (70: failed, 75: fenced itself).

    Raises:
        UnknownFailpointError: `settings.crash_at` names no failpoint.
    """
    gc.set_threshold(*GC_THRESHOLDS)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(settings, rate, clock, meter))


async def _run(settings: StreamsSettings, rate: Rate, clock: Clock, meter: Meter) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    streams = build_streams(settings, rate, clock, meter)
    app = streams.app
    app.finalize()
    flushing = asyncio.create_task(_flush(streams), name="flusher")
    log.info("worker.starting", app_id=settings.app_id, bootstrap=settings.bootstrap)
    starting = asyncio.create_task(app.start(), name="start")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        # It waits for the group or the changelog, and has not counted anything yet.
        _leave("worker.stopped")
    if starting.exception() is not None:
        end_process(
            FAILED_STATUS, "worker.failed", error=_explained(settings, starting.exception())
        )
    await stopping
    log.info("worker.draining")
    loop.call_later(settings.stop_timeout_ms / 1000, _give_up, streams)
    # The flusher keeps running while Faust stops: Faust waits for the acknowledgements it makes.
    await app.stop()
    flushing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await flushing
    log.info("worker.stopped")
    return 0


def _explained(settings: StreamsSettings, error: BaseException | None) -> str:
    if isinstance(error, KafkaConnectionError):
        return (
            f"no Kafka broker answers at {settings.bootstrap}: start the broker, or correct the "
            "address or the security settings"
        )
    return repr(error)


async def _flush(streams: Streams) -> None:
    app: Any = streams.app

    def writer() -> RecordWriter:
        producer = app.producer
        assert isinstance(producer, SpendProducer)
        return producer

    await streams.flusher.run(writer, lambda: app.crashed)


def _give_up(streams: Streams) -> None:
    """The drain takes too long: Faust waits for a rebalance, or for a broker that is down."""
    if streams.flusher.idle:
        # Everything counted is durable; only the commit may be missing, which is a longer replay.
        _leave("worker.stopped_undrained")
    end_process(FAILED_STATUS, "worker.drain_timeout")


def _leave(fact: str) -> NoReturn:
    """End at once with status 0: nothing is waiting to be made durable."""
    log.info(fact)
    os._exit(0)

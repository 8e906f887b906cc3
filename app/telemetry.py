"""Logs and metrics: one set-up for every worker.

Logs are facts with key and value (`throttle.published scope=... seq=...`): coloured on a terminal,
JSON otherwise. Metrics are the closed list of `schemas.metrics`, served for Prometheus together
with `/ready`, which answers 200 once the worker has caught up and 503 before.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from typing_extensions import override

from meterline.schemas.metrics import Metric

PREFIX = "meterline_"
# Drivers log every reconnect; what matters of it is logged by Meterline as a mapped error.
QUIET = ("kafka", "aiokafka", "faust", "mode", "httpx", "httpcore", "clickhouse_connect", "urllib3")


def set_up_logging(
    worker: str, level: str = "info", style: str = "console", *, drivers: bool = False
) -> None:
    """Send everything to standard error.

    Args:
        worker: name of the process, in every JSON line.
        level: the lowest level that is shown.
        style: `console` or `json`.
        drivers: show the drivers' errors as well. For workers, which outlive a broker's absence;
            a command ends with a line of its own that says the same.
    """
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=28)
    )
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    if style == "json":
        structlog.contextvars.bind_contextvars(worker=worker)
    logging.basicConfig(
        level=max(threshold, logging.WARNING),
        stream=sys.stderr,
        format="%(levelname)s %(name)s: %(message)s",
        force=True,
    )
    quiet = logging.ERROR if drivers else logging.CRITICAL
    for name in QUIET:
        logging.getLogger(name).setLevel(quiet)
    # A driver tries an address that does not answer several times a second, and logs each attempt.
    for handler in logging.getLogger().handlers:
        handler.addFilter(Sparse())


class Sparse(logging.Filter):
    """Passes at most one record of each driver in ten seconds."""

    SILENCE_SECONDS = 10.0

    def __init__(self) -> None:
        """Start with no record seen."""
        super().__init__()
        self._shown: dict[str, float] = {}

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is shown."""
        driver = record.name.partition(".")[0]
        if driver not in QUIET:
            return True
        # Every close of a client cancels its refresh under way, which kafka-python calls an error.
        if record.getMessage().endswith("failed Cancelled"):
            return False
        last = self._shown.get(driver)
        if last is not None and record.created - last < self.SILENCE_SECONDS:
            return False
        self._shown[driver] = record.created
        return True


class PrometheusMeter:
    """The `schemas.metrics.Meter` of a worker process."""

    def __init__(self, worker: str) -> None:
        """Register every metric at once, so that a rate works from the first failure."""
        self.registry = CollectorRegistry()
        self._counters: dict[Metric, Counter] = {}
        self._gauges: dict[Metric, Gauge] = {}
        self._worker = worker
        for metric in Metric:
            text = metric.value.removesuffix("_total")
            help_text = f"{text.replace('_', ' ')} of the worker"
            if metric.value.endswith("_total"):
                self._counters[metric] = Counter(
                    PREFIX + text, help_text, ["worker", "reason"], registry=self.registry
                )
            else:
                self._gauges[metric] = Gauge(
                    PREFIX + text, help_text, ["worker"], registry=self.registry
                )
        self.gauge(Metric.READY, 0)

    def count(self, metric: Metric, amount: int = 1, *, reason: str = "") -> None:
        """Add to a counter."""
        self._counters[metric].labels(self._worker, reason).inc(amount)

    def gauge(self, metric: Metric, value: int) -> None:
        """Set a gauge."""
        self._gauges[metric].labels(self._worker).set(value)

    def ready(self) -> bool:
        """Whether the worker has reported that it has caught up."""
        return (self.registry.get_sample_value(f"{PREFIX}ready", {"worker": self._worker}) or 0) > 0


class MetricsServer:
    """Serves /metrics and /ready from a daemon thread."""

    def __init__(self, meter: PrometheusMeter, host: str, port: int) -> None:
        """Bind at once: `OSError` when the port is taken."""

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self._answer(200, generate_latest(meter.registry))
                elif self.path == "/ready":
                    ready = meter.ready()
                    self._answer(200 if ready else 503, b"ready\n" if ready else b"starting\n")
                else:
                    self._answer(404, b"only /metrics and /ready\n")

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                # A scraper may have hung up after its timeout: that is no event either.
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(body)

            @override
            def log_message(self, format: str, *args: object) -> None:
                """A scrape is no event."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="metrics", daemon=True
        )

    def start(self) -> None:
        """Start serving."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving and free the port."""
        self._server.shutdown()
        self._server.server_close()

"""From emit to alert: how long until Slack and PagerDuty receive the alert on an exhausted budget.

The whole pipeline runs as processes (broker, ClickHouse, streams, sink, alerts, notify) under a
steady load of 1,000 events per second. Each trial has a department of its own whose budget one
event exhausts: the clock runs from `record(event)` until the HTTP request that reports it is at
the receiver. The way is emit, batch, log, fold, snapshot, decide, alert, route, request.

Trials are more than a second apart, because Slack takes one message a second and channel: that
wait is Slack's rule and no property of the pipeline.

    python -m benchmarks.alerts [--json] [--trials N] [--rate EVENTS_PER_SECOND] [--kafka KIND]
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from typing_extensions import override

from benchmarks.report import Figure, Target, finish
from benchmarks.under_load import (
    ORGANISATION,
    in_rounds,
    measure,
    policy,
    quantile,
    read_arguments,
    usage,
)
from meterline.app.telemetry import set_up_logging
from meterline.relay.client import RelayClient

P99_TARGET_SECONDS = 2.0
TRIAL_BOUND_SECONDS = 20.0
# Slack's one a second, and a little.
TRIAL_SPACING_SECONDS = 1.05
CHANNELS = ("slack", "pagerduty")
_DEPARTMENT = re.compile(rf"department:{ORGANISATION}/(d\d+)")


class Receivers:
    """When each channel was first notified of each department, on the clock of the trials."""

    def __init__(self) -> None:
        self._notified_at: dict[tuple[str, str], float] = {}
        self._changed = threading.Condition()
        self.base_url = ""

    def note(self, channel: str, body: str) -> None:
        """A request came."""
        at = time.perf_counter()
        found = _DEPARTMENT.search(body)
        department = found[1] if found else ""
        with self._changed:
            self._notified_at.setdefault((channel, department), at)
            self._changed.notify_all()

    def wait(self, channel: str, department: str, seconds: float) -> float:
        """When the channel was notified of the department."""
        with self._changed:
            found = self._changed.wait_for(
                lambda: self._notified_at.get((channel, department)), timeout=seconds
            )
        if not found:
            message = f"{channel} was never notified of {department}"
            raise TimeoutError(message)
        return found


@contextmanager
def receiving() -> Iterator[Receivers]:
    """Slack and PagerDuty on this machine."""
    receivers = Receivers()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            receivers.note(self.path.strip("/"), body)
            answer = b"ok"
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        @override
        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receivers.base_url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receivers
    finally:
        server.shutdown()
        server.server_close()


def channels(base_url: str) -> dict[str, Any]:
    """Both channels, which every alert goes to; their secrets into the environment."""
    os.environ["METERLINE_SECRET_SLACK"] = f"{base_url}/slack"
    os.environ["METERLINE_SECRET_PAGERDUTY"] = "0" * 32  # the receiver takes any key
    given: list[dict[str, Any]] = [
        {"id": "slack", "type": "slack", "url_env": "METERLINE_SECRET_SLACK"},
        {
            "id": "pagerduty",
            "type": "pagerduty",
            "url": f"{base_url}/pagerduty",
            "routing_key_env": "METERLINE_SECRET_PAGERDUTY",
        },
    ]
    return {"channels": [{**each, "allow_private_address": True} for each in given]}


def trial(client: RelayClient, receivers: Receivers, number: int) -> dict[str, float]:
    """Seconds from one event to each channel's request."""
    department = f"d{number}"
    began = time.perf_counter()
    client.record(usage(f"trial-{number}:1", department, f"t{number}", large=True))
    return {
        channel: receivers.wait(channel, department, TRIAL_BOUND_SECONDS) - began
        for channel in CHANNELS
    }


def main() -> None:
    """Run, print, exit with 0 if every target is met."""
    arguments = read_arguments(__doc__)
    set_up_logging("alerts", "error")
    with tempfile.TemporaryDirectory() as folder, receiving() as receivers:
        measured = measure(
            Path(folder),
            arguments,
            policy(arguments.trials, channels(receivers.base_url)),
            lambda client, number: trial(client, receivers, number),
            lambda took: max(0.0, TRIAL_SPACING_SECONDS - took),
        )
    figures = []
    for channel in CHANNELS:
        found = [one[channel] for one in measured.trials]
        every = sorted(found)
        figures += [
            Figure(
                f"{channel}_p50_seconds", [quantile(one, 0.50) for one in in_rounds(found)], "s"
            ),
            Figure(f"{channel}_p99_seconds", [quantile(every, 0.99)], "s"),
            Figure(f"{channel}_worst_seconds", [every[-1]], "s"),
        ]
    figures.append(Figure("load_events_per_second", [measured.load_events_per_second], "1/s"))
    targets = [Target(f"{each}_p99_seconds", "<", P99_TARGET_SECONDS) for each in CHANNELS]
    # Without its load the figures would say nothing.
    targets.append(Target("load_events_per_second", ">=", arguments.rate * 0.95))
    finish("alerts", figures, targets, json_flag=arguments.json)


if __name__ == "__main__":
    main()

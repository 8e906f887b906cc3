"""A counting worker as a process of its own that says how far it is, and what that makes."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from meterline.app.clock import now_ms
from meterline.app.workers.streams import run_streams
from meterline.pricing.catalogue_reader import load_catalogue
from meterline.schemas.metrics import Metric
from meterline.streams.settings import StreamsSettings

# A drain takes about a second.
STOP_SECONDS_MAX = 60
COUNT_SECONDS_MAX = 120.0


class Sample(NamedTuple):
    """What a worker says of itself, cumulative."""

    events: int
    seconds: float
    cpu_seconds: float
    rss_kib: int


def say(count: int) -> None:
    """Print one sample for the parent."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sample = Sample(count, time.monotonic(), time.process_time(), peak)
    print(json.dumps(sample), flush=True)


class Round(NamedTuple):
    """One side's figures in one round."""

    events_per_second: float
    cpu_seconds_per_million: float
    peak_rss_mib: float


def run_worker(
    argv: Sequence[str], total: int, *, seconds_max: float = COUNT_SECONDS_MAX
) -> list[Sample]:
    """Run one worker until it has counted everything, or for so long; then end it.

    Args:
        argv: arguments for this interpreter; the worker prints its samples.
        total: how many events there are.
        seconds_max: counted from the first sample; a slow worker is measured on what it did.
    """
    samples: list[Sample] = []
    with subprocess.Popen([sys.executable, *argv], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        for line in worker.stdout:
            samples.append(Sample(*json.loads(line)))
            done = samples[-1].events >= total
            if done or samples[-1].seconds - samples[0].seconds > seconds_max:
                break
        worker.send_signal(signal.SIGTERM)
        try:
            worker.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            # A peer that does not stop: what it counted stands.
            worker.kill()
    assert len(samples) > 1, f"{argv}: too few samples to measure"
    assert samples[-1].events <= total, f"{argv}: {samples[-1].events} of {total} events"
    return samples


def round_of(samples: Sequence[Sample]) -> Round:
    """What the worker did between its first sample and its last."""
    first, last = samples[0], samples[-1]
    counted = last.events - first.events
    return Round(
        counted / (last.seconds - first.seconds),
        (last.cpu_seconds - first.cpu_seconds) / counted * 1e6,
        last.rss_kib / 1024,
    )


class SayingMeter:
    """Prints a sample at each flush that counted something."""

    def __init__(self) -> None:
        self._events = 0

    def count(self, metric: Metric, amount: int = 1, *, reason: str = "") -> None:  # noqa: ARG002
        """Sum the events."""
        if metric is Metric.EVENTS:
            self._events += amount

    def gauge(self, metric: Metric, value: int) -> None:  # noqa: ARG002 - the Meter protocol
        """The last flush is durable."""
        if metric is Metric.LAST_FLUSH_MS and self._events:
            say(self._events)


def our_worker(settings: StreamsSettings) -> int:
    """The product's worker with the shipped prices."""
    return run_streams(settings, load_catalogue().price, now_ms, SayingMeter())

"""What every outage needs: a steady load, the peak of a process's memory, a disk that fills."""

from __future__ import annotations

import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from typing_extensions import override

from meterline.app.clock import now_ms
from meterline.relay.emitter import EmitOutcome, Emitter
from tests.relays import usage_event

CALM_SECONDS = 3.0
RECOVERY_SECONDS_MAX = 180.0
PARTITIONS = 4
MEBIBYTE = 1 << 20
SAMPLE_SECONDS = 0.05


class Peak(threading.Thread):
    """The greatest resident memory of a process, sampled."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(pid)
        self._over = threading.Event()
        self.before = self.peak = self._process.memory_info().rss

    @override
    def run(self) -> None:
        """Sample until `stop`."""
        while not self._over.wait(SAMPLE_SECONDS):
            self.peak = max(self.peak, self._process.memory_info().rss)

    def stop(self) -> float:
        """Growth in MiB."""
        self._over.set()
        self.join()
        return (self.peak - self.before) / MEBIBYTE


class Load:
    """Emits at a steady rate and times every call."""

    def __init__(self, emitter: Emitter, per_second: float) -> None:
        self._emitter = emitter
        self._per_second = per_second
        self.accepted: list[str] = []
        self.refused = 0
        self._number = 0

    def run(self, seconds: float) -> list[float]:
        """Milliseconds of each emit()."""
        took = []
        begun, sent = time.monotonic(), 0
        while (elapsed := time.monotonic() - begun) < seconds:
            while sent < elapsed * self._per_second:
                event = usage_event(self._number, time_ms=now_ms())
                at = time.perf_counter()
                outcome = self._emitter.emit(event)
                took.append((time.perf_counter() - at) * 1000)
                if outcome is EmitOutcome.ACCEPTED:
                    self.accepted.append(event.id)
                else:
                    self.refused += 1
                self._number += 1
                sent += 1
            time.sleep(0.002)
        return took


def p99(values: list[float]) -> float:
    """Nearest rank."""
    return sorted(values)[int(0.99 * len(values))]


@contextmanager
def small_disk(size_bytes: int) -> Iterator[Path]:
    """A file system of limited size, in memory; only root may mount one."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "meterline-outage", folder],
            check=True,
        )
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)

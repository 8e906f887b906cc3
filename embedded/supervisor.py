"""Starts, watches, restarts and stops worker processes, in order, with one log.

One thread (the monitor) spawns every child, reads their output and sees their ends; other threads
only leave wishes under the lock. The monitor lives as long as the supervisor: the kernel kills a
child when the thread that spawned it ends (see `embedded.child`), so a killed supervisor leaves
no workers behind.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import IO, TextIO

import psutil

from meterline.embedded.core.supervision import (
    ProcessSpec,
    ProcessState,
    ProcessStatus,
    RestartPolicy,
    backoff_seconds,
)
from meterline.embedded.errors import EXIT_UNUSABLE, WorkerStartError
from meterline.embedded.processes import KILL_WAIT_SECONDS, dying_with_parent
from meterline.embedded.statefile import write_report
from meterline.embedded.workerlog import LineSplitter, WorkerLog

# How soon an end, a wish or a readiness is noticed.
TICK_SECONDS = 0.05
# How often the state file is written when nothing changes but memory.
REPORT_SECONDS = 1.0
# Output read per worker and tick: a worker that floods the log cannot starve the others.
READ_BYTES = 65_536
# What an ended worker may have left in its pipe (64 KiB on Linux, 1 MiB if enlarged).
DRAIN_READS_MAX = 32
# The lines of a failed worker that go into the error.
ERROR_LINES = 3
SUPERVISOR_NAME = "supervisor"


class _Worker:
    """A worker's state; written by the monitor, except `wanted` and `restart_wanted`."""

    def __init__(self, spec: ProcessSpec, now_ms: int) -> None:
        self.spec = spec
        self.process: subprocess.Popen[bytes] | None = None
        self.status = ProcessStatus.WAITING
        self.since_ms = now_ms
        self.wanted = False
        self.restart_wanted = False
        self.restarts = 0
        self.failures = 0
        self.exit_status: int | None = None
        self.started_at = 0.0
        self.next_start_at = 0.0
        self.kill_at: float | None = None
        self.lines = LineSplitter()
        self.ready_error = ""

    @property
    def output(self) -> IO[bytes] | None:
        return self.process.stdout if self.process is not None else None


class Supervisor:
    """Runs the workers of `specs`; `start`, `stop` and `wait` are for one thread at a time."""

    def __init__(  # noqa: PLR0913 - the composition root names every one of them
        self,
        specs: Sequence[ProcessSpec],
        log: TextIO,
        *,
        clock: Callable[[], int],
        environment: Mapping[str, str],
        state_file: Path | None = None,
        log_file: Path | None = None,
        policy: RestartPolicy | None = None,
    ) -> None:
        """Nothing is started yet.

        Args:
          specs: the workers; their names are unique.
          log: where all output goes, line by line.
          clock: UTC milliseconds, for the states.
          environment: what every worker inherits; a spec's `env` is added.
          state_file: replaced at every change and every second.
          log_file: a copy of the log, bounded.
          policy: when workers are started again.
        """
        names = tuple(spec.name for spec in specs)
        assert len(set(names)) == len(names), names
        self._clock = clock
        self._environment = dict(environment)
        self._policy = policy or RestartPolicy()
        self._state_file = state_file
        self._log = WorkerLog(log, (*names, SUPERVISOR_NAME), file=log_file)
        ordered = sorted(specs, key=lambda spec: spec.order)
        self._workers = {spec.name: _Worker(spec, clock()) for spec in ordered}
        self._changed = threading.Condition()
        self._selector = selectors.DefaultSelector()
        self._closing = False
        self._stopped = threading.Event()
        self._report_due_at = 0.0
        self._monitor = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._prober = threading.Thread(target=self._probe, name="readiness", daemon=True)

    # What callers do

    def start(self, before: Callable[[int], None] | None = None) -> None:
        """Start every worker in order, each order ready before the next.

        `before` is called with each order before its workers start, when all lower orders are
        ready: the place for what they take for granted.

        Raises WorkerStartError, with everything stopped again, if a worker keeps ending or is not
        ready in time.
        """
        self._monitor.start()
        self._prober.start()
        try:
            by_order = groupby(self._workers.values(), key=lambda worker: worker.spec.order)
            for order, group in by_order:
                members = list(group)
                if before is not None:
                    before(order)
                self._start_group(members)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop every worker, the last order first; returns when none is left. May be repeated."""
        workers = reversed(self._workers.values())
        for _, group in groupby(workers, key=lambda worker: worker.spec.order):
            members = list(group)
            with self._changed:
                for worker in members:
                    worker.wanted = False
                    worker.restart_wanted = False
                grace = max(worker.spec.stop_grace_seconds for worker in members)
                self._changed.wait_for(
                    lambda members=members: all(one.process is None for one in members),  # type: ignore[misc]
                    grace + KILL_WAIT_SECONDS,
                )
        self._closing = True
        for thread in (self._monitor, self._prober):
            if thread.is_alive():
                thread.join(KILL_WAIT_SECONDS)
        self._stopped.set()

    def restart(self, name: str) -> None:
        """Stop the worker and start it again, without a pause; KeyError if there is none."""
        with self._changed:
            self._workers[name].restart_wanted = True

    def states(self) -> list[ProcessState]:
        """Every worker as it is now, in start order."""
        with self._changed:
            return [self._state(worker) for worker in self._workers.values()]

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait until `stop` has ended; False if the time is over before."""
        return self._stopped.wait(timeout_seconds)

    # Start

    def _start_group(self, workers: list[_Worker]) -> None:
        with self._changed:
            for worker in workers:
                worker.wanted = True
        begun = time.monotonic()
        with self._changed:
            while any(worker.status is not ProcessStatus.RUNNING for worker in workers):
                for worker in workers:
                    self._refuse_failed_start(worker, time.monotonic() - begun)
                self._changed.wait(TICK_SECONDS)

    def _refuse_failed_start(self, worker: _Worker, waited_seconds: float) -> None:
        if worker.status is ProcessStatus.RUNNING:
            return
        said = " | ".join(list(worker.lines.last)[-ERROR_LINES:]) or "no output"
        # Our servers say with this status that their user must act: trying again cannot help.
        hopeless = worker.failures > 0 and worker.exit_status == EXIT_UNUSABLE
        if hopeless or worker.failures >= self._policy.start_failures_max:
            message = (
                f"worker {worker.spec.name} ended {worker.failures} time(s) at start, last with "
                f"status {worker.exit_status}: {said}"
            )
            raise WorkerStartError(message)
        if waited_seconds > worker.spec.ready_timeout_seconds:
            because = f" ({worker.ready_error})" if worker.ready_error else ""
            message = (
                f"worker {worker.spec.name} was not ready within "
                f"{worker.spec.ready_timeout_seconds:g} s{because}; its last words: {said}"
            )
            raise WorkerStartError(message)

    def _probe(self) -> None:
        """Ask starting workers whether they are ready; slow answers delay no other worker's output."""
        while not self._closing:
            with self._changed:
                starting = [
                    (worker, worker.process)
                    for worker in self._workers.values()
                    if worker.status is ProcessStatus.STARTING
                ]
            for worker, process in starting:
                ready = self._ready(worker)
                with self._changed:
                    same = worker.process is process and worker.status is ProcessStatus.STARTING
                    if ready and same:
                        self._set_status(worker, ProcessStatus.RUNNING)
            time.sleep(TICK_SECONDS)

    def _ready(self, worker: _Worker) -> bool:
        if worker.spec.ready is None:
            return True
        try:
            return worker.spec.ready()
        except Exception as error:  # noqa: BLE001 - a check that fails says "not ready", and why
            worker.ready_error = f"{type(error).__name__}: {error}"
            return False

    # The monitor

    def _watch(self) -> None:
        while True:
            for key, _ in self._selector.select(TICK_SECONDS):
                self._read(key.data)
            now = time.monotonic()
            with self._changed:
                for worker in self._workers.values():
                    self._tick(worker, now)
                running = any(worker.process is not None for worker in self._workers.values())
            self._report(now)
            if self._closing and not running:
                break
        self._report(float("inf"))
        self._selector.close()
        self._log.close()

    def _tick(self, worker: _Worker, now: float) -> None:
        if worker.process is None:
            self._tick_ended(worker, now)
            return
        status = worker.process.poll()
        if status is not None:
            self._ended(worker, status, now)
        elif worker.kill_at is not None:
            if now >= worker.kill_at:
                self._kill(worker)
        elif not worker.wanted or worker.restart_wanted:
            self._terminate(worker, now)
        elif now - worker.started_at > self._policy.healthy_seconds:
            worker.failures = 0

    def _tick_ended(self, worker: _Worker, now: float) -> None:
        if worker.wanted:
            if worker.restart_wanted or now >= worker.next_start_at:
                self._spawn(worker, now)
        elif worker.status is ProcessStatus.BACKOFF:
            self._set_status(worker, ProcessStatus.STOPPED)

    def _spawn(self, worker: _Worker, now: float) -> None:
        if worker.status is not ProcessStatus.WAITING:
            worker.restarts += 1
        worker.restart_wanted = False
        worker.lines = LineSplitter()
        worker.started_at = now
        try:
            worker.process = subprocess.Popen(  # noqa: S603 - the composition root's own workers
                dying_with_parent(worker.spec.argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**self._environment, **worker.spec.env},
                # A Ctrl-C of the terminal reaches the supervisor only: it stops in order.
                start_new_session=True,
            )
        except OSError as error:
            worker.lines.last.append(str(error))
            self._failed(worker, now)
            return
        assert worker.output is not None
        os.set_blocking(worker.output.fileno(), False)
        self._selector.register(worker.output, selectors.EVENT_READ, worker)
        self._set_status(worker, ProcessStatus.STARTING)

    def _terminate(self, worker: _Worker, now: float) -> None:
        assert worker.process is not None
        worker.kill_at = now + worker.spec.stop_grace_seconds
        self._set_status(worker, ProcessStatus.STOPPING)
        with contextlib.suppress(ProcessLookupError):
            worker.process.send_signal(signal.SIGTERM)

    def _kill(self, worker: _Worker) -> None:
        assert worker.process is not None
        self._say(
            f"{worker.spec.name} ignored SIGTERM for {worker.spec.stop_grace_seconds:g} s: SIGKILL"
        )
        worker.kill_at = float("inf")
        # The worker leads its own session, so this takes its children too.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.process.pid, signal.SIGKILL)

    def _ended(self, worker: _Worker, status: int, now: float) -> None:
        self._drain(worker)
        worker.process = None
        worker.kill_at = None
        worker.exit_status = status
        if not worker.wanted:
            self._set_status(worker, ProcessStatus.STOPPED)
        elif worker.restart_wanted:
            worker.next_start_at = now
            self._set_status(worker, ProcessStatus.BACKOFF)
        else:
            self._failed(worker, now)

    def _failed(self, worker: _Worker, now: float) -> None:
        worker.failures += 1
        pause = backoff_seconds(self._policy, worker.failures)
        worker.next_start_at = now + pause
        self._set_status(worker, ProcessStatus.BACKOFF)
        self._say(
            f"{worker.spec.name} ended with status {worker.exit_status} "
            f"({worker.failures} in a row): next start in {pause:g} s"
        )

    # Output

    def _read(self, worker: _Worker) -> bool:
        """Log what the worker wrote; False when there is no more yet."""
        output = worker.output
        if output is None:
            return False
        try:
            data = os.read(output.fileno(), READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            # Closed by the worker: it would stay readable.
            with contextlib.suppress(KeyError):
                self._selector.unregister(output)
            return False
        for line in worker.lines.feed(data):
            self._log.write(worker.spec.name, line)
        return True

    def _drain(self, worker: _Worker) -> None:
        # Bounded: what a surviving child of the worker still writes is not waited for.
        for _ in range(DRAIN_READS_MAX):
            if not self._read(worker):
                break
        for line in worker.lines.finish():
            self._log.write(worker.spec.name, line)
        output = worker.output
        if output is not None:
            with contextlib.suppress(KeyError):
                self._selector.unregister(output)
            output.close()

    def _say(self, line: str) -> None:
        self._log.write(SUPERVISOR_NAME, line)

    # States

    def _set_status(self, worker: _Worker, status: ProcessStatus) -> None:
        worker.status = status
        worker.since_ms = self._clock()
        self._report_due_at = 0.0
        self._changed.notify_all()

    def _state(self, worker: _Worker) -> ProcessState:
        pid = worker.process.pid if worker.process is not None else None
        return ProcessState(
            name=worker.spec.name,
            pid=pid,
            status=worker.status,
            restarts=worker.restarts,
            since_ms=worker.since_ms,
            rss_bytes=_rss_bytes(pid),
            exit_status=worker.exit_status,
        )

    def _report(self, now: float) -> None:
        if self._state_file is None or now < self._report_due_at:
            return
        self._report_due_at = now + REPORT_SECONDS
        try:
            write_report(self._state_file, self.states(), self._clock())
        except OSError as error:
            self._say(f"cannot write {self._state_file}: {error.strerror}")


def _rss_bytes(pid: int | None) -> int | None:
    if pid is None:
        return None
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None

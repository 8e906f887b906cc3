"""A running pipeline that can be struck: `meterline up`'s stack, relays that make the load.

Workers and servers are started again by the stack's own supervisor, as in production; what is
killed here is only killed. Relays are started again by us.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TextIO

from benchmarks.chaos_suite.policy import SECRET_NAME
from benchmarks.chaos_suite.relays import Relay
from benchmarks.chaos_suite.schedule import Strike, Way
from meterline.app.local.stack import Stack, StackOptions
from meterline.app.local.worker_specs import worker_processes
from meterline.embedded.core.supervision import ProcessState, ProcessStatus, RestartPolicy
from tests.webhook_receiver import SECRET

# Started again at once: a run of kills must not be spent on waiting.
RESTART = RestartPolicy(backoff_first_seconds=0.2, backoff_max_seconds=1.0)
# A worker joins its group after the dead member's session, reads its changelog: ten seconds on a
# quiet machine. On cores that twenty others want as well it took 150 s, and was no failure.
UP_SECONDS_MAX = 400.0
CRASH_SECONDS_MAX = 30.0
"""A point that is not passed within this is given up: then its process is killed at random."""
POLL_SECONDS = 0.05
APACHE_SESSION_MS = 6_000
EMBEDDED_SESSION_MS = 3_000
PAUSE_SESSIONS = 1.5


class NotUpError(RuntimeError):
    """A process did not come up again."""


class Pipeline:
    """Stack and relays."""

    def __init__(self, folder: Path, kafka: str, policy: Path, log: TextIO) -> None:
        """Nothing is started yet."""
        self.kafka = kafka
        self.session_ms = APACHE_SESSION_MS if kafka == "apache" else EMBEDDED_SESSION_MS
        processes = worker_processes(2 if kafka == "apache" else 1)
        self.streams = [name for name, each in processes.items() if each.name == "streams"]
        session = {"METERLINE_KAFKA__SESSION_TIMEOUT_MS": str(self.session_ms)}
        self._environment: dict[str, dict[str, str]] = {name: dict(session) for name in processes}
        self._environment["notify"][SECRET_NAME] = SECRET
        self.stack = Stack(
            StackOptions(
                folder / "data",
                kafka=kafka,
                policy=policy,
                streams_workers=len(self.streams),
                environment=self._environment,
                restart=RESTART,
            ),
            log,
            lambda _line: None,
        )
        self.relays: dict[str, Relay] = {}
        self.crashes_reached = 0
        self.crashes_missed: list[str] = []

    def start(self) -> None:
        """Start servers and workers; relays are added by `add_relay`."""
        self.stack.start()

    def add_relay(self, relay: Relay) -> None:
        """Start a relay."""
        self.relays[relay.name] = relay
        relay.start()

    def close(self) -> None:
        """Stop everything."""
        for relay in self.relays.values():
            relay.close()
        self.stack.stop()

    def strike(self, strike: Strike) -> None:
        """Let one process die."""
        if strike.victim in self.relays:
            self._strike_relay(self.relays[strike.victim], strike)
        elif strike.way is Way.PAUSE:
            self._pause(strike.victim)
        elif strike.way is Way.CRASH:
            self._crash(strike.victim, strike.point)
        else:
            self.kill(strike.victim)

    def kill(self, name: str) -> int:
        """SIGKILL; the process id that is gone."""
        pid = self.wait_pid(name, 0)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return pid

    def wait_up(self) -> None:
        """Wait until everything runs and has caught up."""
        deadline = time.monotonic() + UP_SECONDS_MAX
        while down := [
            one.name for one in self.stack.states() if one.status is not ProcessStatus.RUNNING
        ]:
            if time.monotonic() > deadline:
                message = f"not up again within {UP_SECONDS_MAX:g} s: {', '.join(down)}"
                raise NotUpError(message)
            time.sleep(POLL_SECONDS)

    def wait_pid(self, name: str, before: int) -> int:
        """The process id of a worker, once it is another than `before`."""
        deadline = time.monotonic() + UP_SECONDS_MAX
        while time.monotonic() < deadline:
            pid = self._state(name).pid
            if pid is not None and pid != before:
                return pid
            time.sleep(POLL_SECONDS)
        message = f"{name} was not started again within {UP_SECONDS_MAX:g} s"
        raise NotUpError(message)

    def rss_bytes(self) -> dict[str, int]:
        """Memory of every process of the stack."""
        return {one.name: one.rss_bytes for one in self.stack.states() if one.rss_bytes}

    def _state(self, name: str) -> ProcessState:
        (found,) = (one for one in self.stack.states() if one.name == name)
        return found

    def _strike_relay(self, relay: Relay, strike: Strike) -> None:
        relay.kill()
        if strike.way is Way.CRASH:
            relay.start(strike.point)
            self._note_crash(strike.victim, strike.point, relay.wait_crash(CRASH_SECONDS_MAX))
            relay.kill()
        relay.start()
        relay.wait_ready()

    def _crash(self, name: str, point: str) -> None:
        """The next process of this worker kills itself at the point, the one after lives."""
        environment = self._environment[name]
        environment["METERLINE_CRASH_AT"] = point
        pid = self.wait_pid(name, self.kill(name))
        # Read when a process is started: from here on no process reads it.
        del environment["METERLINE_CRASH_AT"]
        begun = time.monotonic()
        deadline = begun + CRASH_SECONDS_MAX
        while (state := self._state(name)).pid == pid and time.monotonic() < deadline:
            if state.status is not ProcessStatus.RUNNING:
                # It passes no point before it is up.
                deadline = min(time.monotonic(), begun + UP_SECONDS_MAX) + CRASH_SECONDS_MAX
            time.sleep(POLL_SECONDS)
        reached = state.pid != pid
        self._note_crash(name, point, reached)
        if not reached:
            self.kill(name)

    def _note_crash(self, name: str, point: str, reached: bool) -> None:  # noqa: FBT001 - one caller each
        if reached:
            self.crashes_reached += 1
        else:
            self.crashes_missed.append(f"{name} {point}")

    def _pause(self, name: str) -> None:
        """SIGSTOP, SIGCONT after the session: it must notice and end, and its successor lives."""
        pid = self.wait_pid(name, 0)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(self.session_ms / 1000 * PAUSE_SESSIONS)
            os.kill(pid, signal.SIGCONT)

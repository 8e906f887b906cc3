"""Relay processes as their parent sees them: start, kill, ask."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time
from typing import Any

import msgspec

from benchmarks.chaos_suite.relay_node import DRAIN_SECONDS_MAX, READY_SECONDS_MAX, NodeOptions
from meterline.app.settings import base_environment
from meterline.embedded.processes import dying_with_parent

ANSWER_SECONDS_MAX = DRAIN_SECONDS_MAX + 15
QUIT_SECONDS_MAX = 15.0
# It imports, opens its spool, reads its topics; a loaded machine and a broker that is down take their
# time.
START_SECONDS_MAX = READY_SECONDS_MAX + 120


class RelayError(RuntimeError):
    """A relay ended by itself or does not answer."""


class Relay:
    """One relay: a succession of processes with one journal and one spool."""

    def __init__(self, options: NodeOptions) -> None:
        self.options = options
        self.name = options.name
        self.recorded_again = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def start(self, crash_at: str = "") -> None:
        """Start a process; does not wait for it."""
        options = msgspec.structs.replace(self.options, crash_at=crash_at)
        self._answers = queue.SimpleQueue()
        self._process = subprocess.Popen(
            dying_with_parent(
                (
                    *(sys.executable, "-m", "benchmarks.chaos_suite.relay_node"),
                    msgspec.json.encode(options).decode(),
                )
            ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=base_environment(),
        )
        threading.Thread(
            target=self._listen, args=(self._process, self._answers), daemon=True
        ).start()

    def wait_ready(self) -> None:
        """Wait until it serves."""
        ready = self._answer("ready", START_SECONDS_MAX)
        self.recorded_again += int(ready["recorded_again"])

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()

    def wait_crash(self, seconds: float) -> bool:
        """Whether it killed itself, at its start or within the time from when it serves."""
        assert self._process is not None
        try:
            self.wait_ready()
            self._process.wait(seconds)
        except RelayError:
            return self._process.poll() is not None
        except subprocess.TimeoutExpired:
            return False
        return True

    def ask(self, command: str, answer: str) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(command.encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            message = f"{self.name} has ended with status {self._process.poll()}"
            raise RelayError(message) from error
        return self._answer(answer, ANSWER_SECONDS_MAX)

    def close(self) -> None:
        """End it."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(QUIT_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()

    def _answer(self, kind: str, seconds: float) -> dict[str, Any]:
        assert self._process is not None
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                found = self._answers.get(timeout=min(left, 0.5))
            except queue.Empty:
                if self._process.poll() is not None:
                    break
                continue
            if found["kind"] == kind:
                return found
        message = f"{self.name} did not answer {kind!r} (status {self._process.poll()})"
        raise RelayError(message)

    @staticmethod
    def _listen(
        process: subprocess.Popen[bytes], answers: queue.SimpleQueue[dict[str, Any]]
    ) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                answers.put(msgspec.json.decode(line, type=dict[str, Any]))

"""One server as a child process: start, wait until it answers, stop.

Nothing here knows Kafka or ClickHouse: a caller gives the argument vector and a function that
says whether the server answers.
"""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from meterline.embedded.errors import PortBusyError, ServerStartError

LOCALHOST = "127.0.0.1"
# Often enough that a server ready in 10 ms costs no more, rarely enough to cost no CPU.
READY_POLL_SECONDS = 0.02
# A server that does not end by SIGTERM within this is killed: nothing in it is waited for.
STOP_GRACE_SECONDS = 10.0
# After SIGKILL only the kernel is waited for; longer means an uninterruptible disk wait.
KILL_WAIT_SECONDS = 10.0
# The last lines of a failed server's output that go into the error: enough to hold a cause.
ERROR_TAIL_LINES = 3
# How much of the output's end is read to find those lines.
ERROR_TAIL_BYTES = 16_384
# A line of an error stays a line: longer ones are cut.
ERROR_LINE_CHARACTERS = 300

# Linux gives 32768 and above to connections, macOS and Windows 49152 and above.
_PORTS = range(20_000, 32_000)
# This many busy ports in a row mean a machine with very many servers: then the system chooses.
PORT_TRIES_MAX = 100
_CHILD_WRAPPER = Path(__file__).with_name("child.py")


def free_port() -> int:
    """A TCP port of 127.0.0.1 that no process listens on now.

    Below the ports that systems give to outgoing connections: a worker that is started again needs
    its port after minutes, in which any client could have been given it.
    """
    for _ in range(PORT_TRIES_MAX):
        port = secrets.choice(_PORTS)
        try:
            require_free_port(port)
        except PortBusyError:
            continue
        return port
    with socket.socket() as probe:
        probe.bind((LOCALHOST, 0))
        given: int = probe.getsockname()[1]
        return given


def require_free_port(port: int) -> None:
    """Raise PortBusyError if `port` cannot be bound."""
    with socket.socket() as probe:
        # As servers do: connections of a just ended server in TIME_WAIT are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOCALHOST, port))
        except OSError as error:
            raise PortBusyError(port) from error


def dying_with_parent(argv: tuple[str, ...]) -> tuple[str, ...]:
    """`argv` wrapped so that the process dies when its parent does (Linux; elsewhere as is)."""
    if sys.platform != "linux":
        return argv
    return (sys.executable, "-I", "-S", str(_CHILD_WRAPPER), str(os.getpid()), *argv)


def tail(output: bytes) -> str:
    """The last lines of a process's output as one line for an error message."""
    lines = output.decode(errors="replace").splitlines()
    kept = [line.strip()[:ERROR_LINE_CHARACTERS] for line in lines if line.strip()]
    return " | ".join(kept[-ERROR_TAIL_LINES:]) or "no output"


class ServerProcess:
    """A server that runs as our child; its output goes to a file that errors quote."""

    def __init__(
        self, name: str, port: int, process: "subprocess.Popen[bytes]", output: IO[bytes]
    ) -> None:
        self.name = name
        self.port = port
        self._process = process
        self._output = output

    @property
    def pid(self) -> int:
        """The process id of the server itself."""
        return self._process.pid

    @property
    def address(self) -> str:
        """`127.0.0.1:port`."""
        return f"{LOCALHOST}:{self.port}"

    def running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def output_tail(self) -> str:
        """The last lines that the server wrote, as one line."""
        self._output.seek(max(0, self._output.seek(0, os.SEEK_END) - ERROR_TAIL_BYTES))
        return tail(self._output.read())

    def wait_ready(self, ready: Callable[[], bool], timeout_seconds: float) -> None:
        """Return when `ready()` holds; ServerStartError if it ended or the time is over."""
        deadline = time.monotonic() + timeout_seconds
        while not ready():
            if not self.running():
                message = (
                    f"{self.name} ended with status {self._process.returncode} before it "
                    f"answered; its last words: {self.output_tail()}"
                )
                raise ServerStartError(message)
            if time.monotonic() > deadline:
                message = (
                    f"{self.name} did not answer on port {self.port} within "
                    f"{timeout_seconds:g} s; its last words: {self.output_tail()}"
                )
                raise ServerStartError(message)
            time.sleep(READY_POLL_SECONDS)

    def kill(self) -> None:
        """SIGKILL, as a crash would; returns when the process has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait(KILL_WAIT_SECONDS)
        self._output.close()

    def stop(self, grace_seconds: float = STOP_GRACE_SECONDS) -> int:
        """SIGTERM, then SIGKILL after `grace_seconds`; the exit status (negative: the signal)."""
        if self.running():
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(grace_seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
        status = self._process.wait(KILL_WAIT_SECONDS)
        self._output.close()
        return status


def start_server(
    name: str,
    port: int,
    argv: tuple[str, ...],
    *,
    ready: Callable[[], bool],
    ready_timeout_seconds: float,
    environment: Mapping[str, str] | None = None,
) -> ServerProcess:
    """Start `argv`, wait until it answers on `port`; ServerStartError or PortBusyError."""
    require_free_port(port)
    output = tempfile.TemporaryFile(prefix=f"{name}-")  # noqa: SIM115 - closed by stop()
    process = subprocess.Popen(  # noqa: S603 - our own argument vector, no shell
        dying_with_parent(argv),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=dict(environment) if environment is not None else None,
    )
    server = ServerProcess(name, port, process, output)
    try:
        server.wait_ready(ready, ready_timeout_seconds)
    except BaseException:
        server.stop(grace_seconds=0)
        raise
    return server

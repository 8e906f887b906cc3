"""Real servers for tests: the embedded broker, Apache Kafka and ClickHouse as child processes.

    with running_broker() as bootstrap: ...
    with running_broker("apache", tmp_path) as bootstrap: ...
    with running_clickhouse(tmp_path) as (host, port): ...

Each start picks a free port, so tests may run side by side. Start them once per module
(a module-scoped fixture) and use fresh topic, group and table names in each test.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from meterline.embedded.apache_kafka.jars import java_program, resolved_jars
from meterline.embedded.broker import start_broker
from meterline.embedded.clickhouse import start_clickhouse
from meterline.embedded.errors import ServerMissingError
from meterline.embedded.kafka import start_kafka


def require_apache() -> None:
    """Skip the test that asks for it where Apache Kafka cannot run: without Java or Maven."""
    try:
        java_program()
        resolved_jars()
    except ServerMissingError as error:
        pytest.skip(str(error))


@contextmanager
def running_broker(kind: str = "embedded", data_dir: Path | None = None) -> Iterator[str]:
    """A broker's bootstrap address; kind is `embedded` or `apache`, which needs a data directory."""
    if kind == "apache":
        assert data_dir is not None, "Apache Kafka keeps its log in a data directory"
        server = start_kafka(data_dir)
    else:
        assert kind == "embedded", kind
        server = start_broker()
    try:
        yield server.address
    finally:
        server.stop()


@contextmanager
def running_clickhouse(data_dir: Path) -> Iterator[tuple[str, int]]:
    """Host and port of a ClickHouse HTTP server whose data is in `data_dir`."""
    server = start_clickhouse(data_dir)
    try:
        yield "127.0.0.1", server.port
    finally:
        server.stop()

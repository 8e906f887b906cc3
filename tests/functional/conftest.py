"""A ClickHouse server per module and a migrated database per test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.config import ClickHouseConfig
from meterline.sinks.migrate import migrate
from tests.servers import running_clickhouse


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseConfig]:
    with running_clickhouse(tmp_path_factory.mktemp("store")) as (host, port):
        yield ClickHouseConfig(host, port)


@pytest.fixture
def store(config: ClickHouseConfig, request: pytest.FixtureRequest) -> Iterator[Client]:
    """An own database per test, with the tables."""
    name = "d_" + "".join(each if each.isalnum() else "_" for each in request.node.name)
    first = Client(config)
    first.command(f"CREATE DATABASE {name}")
    first.close()
    client = Client(ClickHouseConfig(config.host, config.port, name))
    migrate(client)
    yield client
    client.close()

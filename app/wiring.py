"""Settings to the objects that workers and commands are given."""

from __future__ import annotations

import os
import signal
import socket
import threading
from types import FrameType

from app.settings import BrokerKind, Settings
from backends.clickhouse import ClickHouseConfig
from backends.kafka import KafkaConfig
from pricing.catalogue import Catalogue, load_catalogue

# The embedded broker does not wake a waiting fetch when data arrives, so the wait is the delay.
TANSU_FETCH_WAIT_MS = 10
# Its group join takes half the session's time-out.
TANSU_SESSION_MS = 3_000
KAFKA_FETCH_WAIT_MS = 500


def kafka_config(settings: Settings, client: str) -> KafkaConfig:
    """The door's configuration for one client of this process."""
    section = settings.kafka
    tansu = section.kind is BrokerKind.TANSU
    security: dict[str, str] = {}
    if section.security_protocol != "PLAINTEXT":
        named = {
            "security_protocol": section.security_protocol,
            "sasl_mechanism": section.sasl_mechanism,
            "sasl_plain_username": section.sasl_username,
            "sasl_plain_password": section.sasl_password.get_secret_value(),
            "ssl_cafile": section.ssl_cafile,
        }
        security = {name: value for name, value in named.items() if value}
    return KafkaConfig(
        bootstrap=section.bootstrap,
        client_id=f"meterline-{client}-{socket.gethostname()}-{os.getpid()}",
        fetch_max_wait_ms=TANSU_FETCH_WAIT_MS if tansu else KAFKA_FETCH_WAIT_MS,
        idempotent=not tansu,
        refetch_gaps=tansu,
        session_timeout_ms=TANSU_SESSION_MS if tansu else section.session_timeout_ms,
        security=security,
    )


def clickhouse_config(settings: Settings) -> ClickHouseConfig:
    """The door's configuration."""
    section = settings.clickhouse
    return ClickHouseConfig(
        host=section.host,
        port=section.port,
        database=section.database,
        user=section.user,
        password=section.password.get_secret_value(),
        secure=section.secure,
    )


def catalogue(settings: Settings) -> Catalogue:
    """The shipped rate cards, overridden by the operator's files."""
    return load_catalogue(settings.catalogues)


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set; the worker's loop drains and returns."""
    stop = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    return stop

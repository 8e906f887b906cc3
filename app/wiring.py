"""Settings to the objects that workers and commands are given."""

from __future__ import annotations

import os
import signal
import socket
import threading
from functools import partial
from types import FrameType

import stamina

from meterline.app.settings import CLOSES_DIRECTORY, BrokerKind, Settings
from meterline.backends.clickhouse.config import ClickHouseConfig
from meterline.backends.kafka.config import KafkaConfig, embedded_kafka
from meterline.operations.pipeline import Pipeline
from meterline.pricing.catalogue import Catalogue
from meterline.pricing.catalogue_reader import load_catalogue
from meterline.streams.settings import KafkaSecurity, StreamsSettings

# Retries are silent: what counts is whether the store answers in the end.
stamina.instrumentation.set_on_retry_hooks(())


def kafka_config(settings: Settings, client: str) -> KafkaConfig:
    """The Kafka configuration for one client of this process."""
    section = settings.kafka
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
    client_id = f"meterline-{client}-{socket.gethostname()}-{os.getpid()}"
    if section.kind is BrokerKind.EMBEDDED:
        return embedded_kafka(section.bootstrap, client_id=client_id, security=security)
    return KafkaConfig(
        bootstrap=section.bootstrap,
        client_id=client_id,
        session_timeout_ms=section.session_timeout_ms,
        security=security,
    )


def clickhouse_config(settings: Settings) -> ClickHouseConfig:
    """The configuration of the ClickHouse client."""
    section = settings.clickhouse
    return ClickHouseConfig(
        host=section.host,
        port=section.port,
        database=section.database,
        user=section.user,
        password=section.password.get_secret_value(),
        secure=section.secure,
    )


def streams_settings(settings: Settings) -> StreamsSettings:
    """The section of the streams worker."""
    section = settings.kafka
    kafka = kafka_config(settings, "streams")
    return StreamsSettings(
        bootstrap=section.bootstrap,
        security=KafkaSecurity(
            security_protocol=section.security_protocol,
            sasl_mechanism=section.sasl_mechanism,
            sasl_username=section.sasl_username,
            sasl_password=section.sasl_password.get_secret_value(),
            ssl_cafile=section.ssl_cafile,
        ),
        partitions=section.usage_partitions,
        time_zone=settings.time_zone,
        epoch=settings.log_epoch,
        data_dir=settings.data_dir,
        session_timeout_ms=kafka.session_timeout_ms,
        fetch_max_wait_ms=kafka.fetch_max_wait_ms,
        idempotent=kafka.idempotent,
        refetch_gaps=kafka.refetch_gaps,
        crash_at=settings.crash_at,
    )


def pipeline(settings: Settings) -> Pipeline:
    """What use cases are given in place of settings."""
    return Pipeline(
        kafka=partial(kafka_config, settings),
        clickhouse=clickhouse_config(settings),
        time_zone=settings.time_zone,
        partitions=settings.kafka.usage_partitions,
        ledger=streams_settings(settings).ledger_policy(),
        closes=settings.reports.directory or settings.data_dir / CLOSES_DIRECTORY,
        catalogues=settings.catalogues,
        replication_factor=settings.kafka.replication_factor,
        cluster=settings.clickhouse.cluster,
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

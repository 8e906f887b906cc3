"""What a close works with, wired to the real parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from meterline.app.settings import CLOSES_DIRECTORY, Settings
from meterline.app.wiring import catalogue, clickhouse_config, kafka_config
from meterline.backends.clickhouse.client import Client
from meterline.backends.kafka.admin import Admin
from meterline.backends.kafka.producer import Producer
from meterline.control.store import read_policies
from meterline.pricing.catalogue import load_catalogue
from meterline.reports.close.close import CloseDependencies
from meterline.schemas.audit import AuditEntry, encode_audit
from meterline.schemas.groups import readers_of
from meterline.schemas.policy import PolicyObject
from meterline.schemas.topics import Topic

# A month of 30 million events is added up in less than two minutes.
STATEMENT_SECONDS_MAX = 1_800
READ_SECONDS_MAX = 30.0


def closes_directory(settings: Settings) -> Path:
    """Where closed months stand."""
    return settings.reports.directory or settings.data_dir / CLOSES_DIRECTORY


@contextmanager
def close_doors(settings: Settings, on_step: Callable[[str], None]) -> Iterator[CloseDependencies]:
    """Doors of one close; closed afterwards."""
    config = dataclasses.replace(
        clickhouse_config(settings), statement_seconds_max=STATEMENT_SECONDS_MAX
    )
    client = Client(config)
    try:
        yield CloseDependencies(
            client=client,
            root=closes_directory(settings),
            time_zone=settings.time_zone,
            policies=lambda: read_policy_objects(settings),
            lag=lambda: lag(settings),
            audit=lambda entry: write_audit(settings, entry),
            contracted=catalogue(settings),
            listed=load_catalogue(()),
            on_step=on_step,
        )
    finally:
        client.close()


def read_policy_objects(settings: Settings) -> Mapping[str, PolicyObject]:
    """The published policy, as of now."""
    return read_policies(kafka_config(settings, "close"), READ_SECONDS_MAX)


def lag(settings: Settings) -> Sequence[str]:
    """Workers that have not taken in everything that is in usage.events now."""
    admin = Admin(kafka_config(settings, "close"))
    found: list[str] = []
    topic = Topic.USAGE_EVENTS
    try:
        for spec in readers_of(topic):
            behind = admin.group_lag(spec.group, topic)
            if behind is None:  # it never committed: everything there is waits for it
                behind = admin.held(topic)
            waiting = {number: count for number, count in behind.items() if count}
            if waiting:
                parts = ", ".join(f"partition {number}: {n:,}" for number, n in waiting.items())
                found.append(f"{spec.worker} is behind in {topic.value} ({parts} messages)")
    finally:
        admin.close()
    return found


def write_audit(settings: Settings, entry: AuditEntry) -> None:
    """One entry of the audit log, durably."""
    producer = Producer(kafka_config(settings, "close"))
    try:
        producer.send(Topic.AUDIT_LOG, entry.object_id.encode(), encode_audit(entry))
        producer.flush(READ_SECONDS_MAX)
    finally:
        producer.close()
